package feed

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// Version is of what is said on the socket. It grows with what older ends do not
// know: 2 has resolutions.
const Version = 2

// Serving is what the node's plan says of how it answers.
type Serving struct {
	Listen  []netip.AddrPort `json:"listen,omitempty"`  // where, by UDP and TCP
	Clients []netip.Prefix   `json:"clients,omitempty"` // who may ask, besides the pods of the node
	Node    string           `json:"node,omitempty"`    // its name
	// Domains are the names that policies allow, and patterns of such: the agent is
	// told what they lead to before anybody else is. Sorted; see model.Domains.
	Domains []string `json:"domains,omitempty"`
	// Forgotten changes when the agent has forgotten addresses of names before their
	// time, since nobody wanted them: it has to be told again.
	Forgotten uint64 `json:"forgotten,omitempty"`
}

// Equal tells whether nothing differs.
func (s *Serving) Equal(other *Serving) bool {
	return s.Node == other.Node && slices.Equal(s.Listen, other.Listen) && slices.Equal(s.Clients, other.Clients) && slices.Equal(s.Domains, other.Domains) && s.Forgotten == other.Forgotten
}

// State is what a server was told. It is immutable.
type State struct {
	// Snapshot is the part of the agent's that names are made of, with its revision.
	// NamesKnown is false as long as nothing is known of the cluster.
	Snapshot *model.Snapshot
	Serving  Serving
	// Confirmed says that an agent has told all of it in this process' time. Else
	// it is from a file.
	Confirmed bool
	// Boot is the node's, of which the snapshot is; empty: unknown.
	Boot string
}

// hello is the first line of each end.
type hello struct {
	Version int    `json:"version"`
	Program string `json:"program,omitempty"` // version of Fairlead
	Boot    string `json:"boot,omitempty"`    // of the node
}

// revision ends what belongs together.
type revision struct {
	Revision uint64 `json:"revision"`
	Whole    bool   `json:"whole,omitempty"` // it is all that there is
}

// options are what of the Network names depend on.
type options struct {
	DNS     model.DNSOptions          `json:"dns"`
	Hidden  [len(model.Families)]bool `json:"masquerade"` // by family
	Exclude []netip.Prefix            `json:"exclude,omitempty"`
}

func optionsTo(n *model.Network) *options {
	return &options{n.DNS, n.Masquerade.On, n.Masquerade.Exclude}
}

func (o *options) network() *model.Network {
	n := &model.Network{DNS: o.DNS}
	n.Masquerade.On, n.Masquerade.Exclude = o.Hidden, o.Exclude
	return n
}

// said makes a line.
func said(kind string, put any) (line, error) {
	raw, err := json.Marshal(put)
	if err != nil {
		return line{}, fmt.Errorf("write a %s: %w", kind, err)
	}
	return line{Kind: kind, Put: raw}, nil
}

// tell calls emit with all that differs between two snapshots, the second of which
// knows all names.
func tell(old, new *model.Snapshot, emit func(line) error) error {
	var before []byte
	if old.Network != nil {
		was, err := said("options", optionsTo(old.Network))
		if err != nil {
			return err
		}
		before = was.Put
	}
	is, err := said("options", optionsTo(new.Network))
	if err != nil {
		return err
	}
	if !bytes.Equal(before, is.Put) {
		if err := emit(is); err != nil {
			return err
		}
	}
	for _, name := range order {
		if err := kinds[name].diff(old, new, emit); err != nil {
			return err
		}
	}
	return nil
}

// order is that of the kinds on the wire.
var order = []string{"range", "node", "service", "name", "hosts", "pod", "attachment"}

// listener understands lines. It is for one goroutine.
type listener struct {
	state   State // of the last revision
	network *model.Network
	taking  map[string]intake
	whole   bool // the first revision has come
}

// listen begins with what is known from before.
func listen(state State) *listener {
	if state.Snapshot == nil {
		state.Snapshot = &model.Snapshot{}
	}
	return &listener{state: state, taking: map[string]intake{}}
}

// hear takes a line, and returns whether the state is another one now, or may be.
func (l *listener) hear(said line) (changed bool, err error) {
	switch said.Kind {
	case "hello":
		var h hello
		if err = json.Unmarshal(said.Put, &h); err == nil {
			l.state.Boot = h.Boot
		}
	case "serving":
		var serving Serving
		if err = json.Unmarshal(said.Put, &serving); err == nil {
			l.state.Serving, changed = serving, true
		}
	case "options":
		var o options
		if err = json.Unmarshal(said.Put, &o); err == nil {
			l.network = o.network()
		}
	case "revision":
		var r revision
		if err = json.Unmarshal(said.Put, &r); err == nil && (l.whole || r.Whole) {
			l.end(r)
			changed = true
		}
	default:
		if kinds[said.Kind] == nil {
			return false, nil // of a later version
		}
		taking := l.taking[said.Kind]
		if taking == nil {
			taking = kinds[said.Kind].begin(!l.whole)
			l.taking[said.Kind] = taking
		}
		return false, taking.take(said)
	}
	if err != nil {
		err = fmt.Errorf("read a %s: %w", said.Kind, err)
	}
	return changed, err
}

// end makes the state of a revision.
func (l *listener) end(r revision) {
	next := *l.state.Snapshot
	for _, name := range order {
		if taking := l.taking[name]; taking != nil {
			taking.end(&next)
		} else if r.Whole && !l.whole { // there are none
			kinds[name].begin(true).end(&next)
		}
	}
	if l.network != nil {
		next.Network = l.network
	}
	next.Revision, next.NamesKnown = r.Revision, next.Network != nil
	l.state.Snapshot, l.state.Confirmed = &next, true
	l.whole, l.network, l.taking = true, nil, map[string]intake{}
}
