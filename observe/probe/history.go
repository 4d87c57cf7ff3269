package probe

import (
	"maps"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// Key names a path to a peer in one family.
type Key struct {
	Peer   string
	Path   Path
	Family string
}

// Track is what probes of one path have found, round after round.
type Track struct {
	Sent, Lost int
	Answers    int     // rounds in which one came
	RTT        float64 // of these together, in seconds
	Up         bool    // in the last round
	Planned    int     // bytes that should pass; 0: not known
	Passed     int     // bytes that did in the last round; 0: not known
	Silent     int     // rounds in a row without an answer
	Swallowed  int     // rounds in a row in which large packets were lost without a word
	Error      string  // what was heard last instead of an answer
}

// History is what a node knows of the paths to its peers. The zero value is
// empty. It is not safe for concurrent use.
type History struct {
	Tracks  map[Key]Track
	vouched map[string]bool // peers that were seen to have an endpoint, or said so
}

// rounds in a row make a fault: fewer are a peer that is restarted.
const rounds = 3

// Note takes what one round has found of a path: an answer or none, and whether
// the planned MTU passes if that was asked.
func (h *History) Note(ping Result, mtu *Result) {
	if h.Tracks == nil {
		h.Tracks, h.vouched = map[Key]Track{}, map[string]bool{}
	}
	key := Key{ping.Peer, ping.Path, ping.Family}
	t := h.Tracks[key]
	t.Sent, t.Lost, t.Up = t.Sent+ping.Sent, t.Lost+ping.Lost, ping.OK
	if ping.OK {
		t.Answers, t.RTT, t.Silent, t.Error = t.Answers+1, t.RTT+ping.RTT, 0, ""
	} else {
		t.Silent, t.Error, t.Swallowed, t.Passed = t.Silent+1, ping.Error, 0, 0
	}
	if ping.Endpoint || ping.OK && ping.Path.ToPod() {
		h.vouched[ping.Peer] = true
	}
	switch {
	case mtu == nil:
	case mtu.OK:
		t.Planned, t.Passed, t.Swallowed = mtu.Planned, mtu.Found, 0
	default:
		t.Planned, t.Swallowed = mtu.Planned, t.Swallowed+1
		if t.Passed >= mtu.Planned {
			t.Passed = 0
		}
		if mtu.Found > 0 {
			t.Passed = mtu.Found
		}
	}
	h.Tracks[key] = t
}

// Vouch notes what is known of a peer otherwise: whether it has an endpoint. One
// whose agent does not run has none, and then it is no fault of a path that it
// does not answer.
func (h *History) Vouch(peer string, endpoint bool) {
	if h.vouched != nil {
		h.vouched[peer] = endpoint
	}
}

// Search tells whether it is time to find out what does pass: as soon as that
// large packets do not is no accident, and now and then from there on.
func (h *History) Search(key Key) bool {
	swallowed := h.Tracks[key].Swallowed + 1 // this round
	return swallowed == rounds || swallowed > rounds && swallowed%30 == 0
}

// Forget drops the paths that are not probed any more.
func (h *History) Forget(gone func(Key) bool) {
	left := map[string]bool{}
	for key := range h.Tracks {
		if gone(key) {
			delete(h.Tracks, key)
		} else {
			left[key.Peer] = true
		}
	}
	for peer := range h.vouched {
		if !left[peer] {
			delete(h.vouched, peer)
		}
	}
}

// Fault is what somebody has to mend between this node and a peer.
type Fault struct {
	Peer     string
	Families []string
	Paths    []Path // sorted as Paths
	Large    bool   // large packets alone are lost, on one path; else all are, although the nodes reach each other
	Track           // of the first path in the first family
}

// Faults are those that have lasted, sorted. That a whole node is not reached is
// none: it may be switched off.
func (h *History) Faults() (faults []Fault) {
	peers := map[string]bool{}
	for key := range h.Tracks {
		peers[key.Peer] = true
	}
	for _, peer := range slices.Sorted(maps.Keys(peers)) {
		var found []Fault
		for _, family := range model.Families {
			if broken, ok := h.broken(peer, family.String()); ok {
				found = append(found, broken)
			}
			if large, ok := h.swallowed(peer, family.String()); ok {
				found = append(found, large)
			}
		}
		for _, f := range found {
			at := slices.IndexFunc(faults, func(other Fault) bool {
				return other.Peer == f.Peer && other.Large == f.Large && slices.Equal(other.Paths, f.Paths) &&
					other.Planned == f.Planned && other.Passed == f.Passed
			})
			if at < 0 {
				faults = append(faults, f)
			} else {
				faults[at].Families = append(faults[at].Families, f.Families...)
			}
		}
	}
	return faults
}

// broken finds the paths from and to pods that fail while the nodes reach each
// other.
func (h *History) broken(peer, family string) (f Fault, ok bool) {
	reached := false
	for _, family := range model.Families { // a tunnel of the other one, perhaps
		reached = reached || h.Tracks[Key{peer, HostToHost, family.String()}].Up
	}
	for _, path := range Paths {
		t, probed := h.Tracks[Key{peer, path, family}]
		if !probed || path == HostToHost || t.Silent < rounds || !reached || path.ToPod() && !h.vouched[peer] {
			continue
		}
		if !ok {
			f = Fault{Peer: peer, Families: []string{family}, Track: t}
		}
		f.Paths, ok = append(f.Paths, path), true
	}
	return f, ok
}

// swallowed finds a path on which large packets are lost: that between the nodes
// if it is one, since pods' packets are in those.
func (h *History) swallowed(peer, family string) (f Fault, ok bool) {
	for _, path := range []Path{HostToHost, PodToPod, HostToPod, PodToHost} {
		if t := h.Tracks[Key{peer, path, family}]; t.Swallowed >= rounds {
			return Fault{Peer: peer, Families: []string{family}, Paths: []Path{path}, Large: true, Track: t}, true
		}
	}
	return f, false
}

// Words are the fault's paths as people call them.
func (f Fault) Words() string { return Words(f.Paths) }

// Words puts paths into words, such as "from pods to pods".
func Words(paths []Path) string {
	var texts []string
	for _, path := range paths {
		if path == HostToHost {
			texts = append(texts, "from node to node")
			continue
		}
		from, to := "from the node", "to the node"
		if path.FromPod() {
			from = "from pods"
		}
		if path.ToPod() {
			to = "to pods"
		}
		texts = append(texts, from+" "+to)
	}
	if len(texts) < 2 {
		return strings.Join(texts, "")
	}
	return strings.Join(texts[:len(texts)-1], ", ") + " and " + texts[len(texts)-1]
}
