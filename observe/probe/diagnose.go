package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// answers are what one node has found of a way in one family.
type answers struct {
	from, to string
	family   string
	way      Way
	results  map[Path]map[Kind]Result
}

// way judges what a node says of the way to another, or to its own pods.
func (j *judge) way(r *Report, to string) {
	if slices.Contains(r.Unknown, to) {
		j.find(Finding{State: Failed, Ways: []Route{{r.Node, to}},
			What: fmt.Sprintf("%s does not know node %s", r.Node, to),
			Why:  "its agent has not heard of it from the API server",
			Next: "see whether it reaches the API server: fairlead status"})
		return
	}
	sent := false
	for _, family := range model.Families {
		a := &answers{from: r.Node, to: to, family: family.String(), way: r.Ways[to], results: map[Path]map[Kind]Result{}}
		for _, result := range r.Results {
			if result.Peer != to || result.Family != a.family {
				continue
			}
			if a.results[result.Path] == nil {
				a.results[result.Path] = map[Kind]Result{}
			}
			a.results[result.Path][result.Kind] = result
		}
		if len(a.results) == 0 {
			continue
		}
		sent = true
		if r.Node == to {
			j.own(a)
		} else {
			j.pair(a)
		}
	}
	if !sent && r.Node != to { // of a node itself, it is told that it has no endpoint
		j.find(Finding{State: Failed, Ways: []Route{{r.Node, to}},
			What: "nothing was sent from one node to the other",
			Why:  "the two have no address of the same family, as far as the sender knows",
			Next: "see what they have, and give both an InternalIP and a pod range of the same family: fairlead status -o wide"})
	}
}

func (a *answers) finding(state State, what, why, next string) Finding {
	return Finding{State: state, Ways: []Route{{a.from, a.to}}, Families: []string{a.family}, What: what, Why: why, Next: next}
}

// asked tells whether a path was probed.
func (a *answers) asked(path Path) bool { return a.results[path] != nil }

// silent tells whether a path was probed and nothing at all came back.
func (a *answers) silent(path Path) bool {
	results := a.results[path]
	return results != nil && !results[ICMP].OK && !results[UDP].OK && !results[TCP].OK
}

// said is what was heard on a path instead of an answer, as a half sentence.
func (a *answers) said(path Path) string {
	for _, kind := range []Kind{ICMP, UDP, TCP} {
		switch r := a.results[path][kind]; {
		case r.Error != "" && r.From.IsValid():
			return fmt.Sprintf("%s says: %s", r.From, r.Error)
		case r.Error != "":
			return "the kernel of " + a.from + " says: " + r.Error
		}
	}
	return ""
}

func (a *answers) address(path Path) netip.Addr { return a.results[path][ICMP].To }

// own judges whether a node and its own pods reach each other.
func (j *judge) own(a *answers) {
	for path, words := range map[Path]string{HostToPod: "the node does not reach its own pods", PodToHost: "pods do not reach the node that they are on"} {
		if a.silent(path) && !(path.ToPod() && j.blind(a.to)) {
			j.find(a.finding(Failed, words, first(a.said(path), "a firewall of the node drops the packets, or what the agent programmed is gone"+j.firewalls(a)),
				"see what the node says of itself: fairlead status; and list its rules: nft list ruleset"))
		}
	}
}

// pair judges the way from one node to another.
func (j *judge) pair(a *answers) {
	pods := []Path{PodToPod, HostToPod}
	if a.silent(HostToHost) {
		if slices.ContainsFunc(pods, func(path Path) bool { return a.asked(path) && !a.silent(path) }) {
			j.find(a.finding(Warn, "nodes do not answer each other's probes, although their pods do",
				fmt.Sprintf("a firewall of the nodes drops ICMP, and port %d of UDP and TCP", Port),
				fmt.Sprintf("nothing has to be done for pods; to have probes between the nodes, let it pass ICMP and port %d", Port)))
		} else {
			j.find(a.finding(Failed, "no packet gets from one node to the other, nor from pods to pods",
				first(a.said(HostToHost), "nothing comes back: a machine is off, or the network between them or a firewall drops all"+j.firewalls(a)),
				fmt.Sprintf("see whether %s runs (kubectl get nodes), and whether anything of %s reaches %s: ping and traceroute from the node", a.to, a.from, a.address(HostToHost))))
		}
	} else {
		j.kinds(a, HostToHost)
	}
	if !a.silent(HostToHost) || !a.asked(HostToHost) {
		j.pods(a)
	}
	j.mtu(a)
	j.loss(a)
}

// pods judges the paths from and to pods, where the nodes reach each other.
func (j *judge) pods(a *answers) {
	var broken []Path
	for _, path := range []Path{PodToPod, PodToHost, HostToPod} {
		switch {
		case path.ToPod() && j.blind(a.to):
		case a.silent(path):
			broken = append(broken, path)
		case a.asked(path):
			j.kinds(a, path)
		}
	}
	if len(broken) == 0 {
		return
	}
	j.find(a.finding(Failed, "packets "+Words(broken)+" are lost, although the nodes reach each other", j.cause(a, broken)+j.firewalls(a),
		fmt.Sprintf("%s, then see each hop: fairlead route --from node/%s --to %s", j.remedy(a, broken), a.from, a.address(broken[0]))))
}

// cause is the likeliest one of paths that are broken.
func (j *judge) cause(a *answers, broken []Path) string {
	toPods := slices.Contains(broken, PodToPod) && slices.Contains(broken, HostToPod)
	switch said := a.said(broken[0]); {
	case said != "":
		return said
	case toPods && j.ownPodsBroken(a.to, a.family):
		return a.to + " does not reach its own pods either"
	case toPods && j.stuck(a.to):
		return stuckCause(a.to)
	case slices.Contains(broken, PodToHost) && slices.Contains(broken, PodToPod) && !toPods:
		return stuckCause(a.from)
	case toPods && a.way.Port != 0:
		return fmt.Sprintf("nothing comes back through %s: something between the nodes, or a firewall of theirs, drops %s", a.way.Name, a.way.Carrier())
	case toPods:
		return fmt.Sprintf("nothing comes back (%s): something between the nodes, or a firewall of theirs, drops %s", first(a.way.Name, "no route"), a.way.Carrier())
	case slices.Equal(broken, []Path{PodToHost}):
		return "a firewall of " + a.to + " keeps pods from the node itself"
	case slices.Contains(broken, HostToPod):
		return "what the node sends itself is lost, and what it forwards is not: it leaves with an address that does not lead back"
	default:
		return stuckCause("one of the nodes")
	}
}

// firewalls names what may be the cause on the two nodes, the same for both ways.
func (j *judge) firewalls(a *answers) string {
	const most = 5
	var named, legacy []string
	for _, node := range slices.Compact(slices.Sorted(slices.Values([]string{a.from, a.to}))) {
		report := j.reports[node]
		if report == nil {
			continue
		}
		if len(report.Legacy) > 0 {
			legacy = append(legacy, "on "+node+", "+strings.Join(report.Legacy, " and "))
		}
		if len(report.Firewalls) == 0 {
			continue
		}
		chains := strings.Join(report.Firewalls[:min(most, len(report.Firewalls))], ", ")
		if more := len(report.Firewalls) - most; more > 0 {
			chains += fmt.Sprintf(" and %d more", more)
		}
		named = append(named, node+" has "+chains)
	}
	text := ""
	if len(named) > 0 {
		text = "; chains of other programs that drop some packets: " + strings.Join(named, "; ")
	}
	if len(legacy) > 0 {
		text += "; iptables-legacy may drop some, too, which nft does not list: " + strings.Join(legacy, "; ")
	}
	return text
}

// stuck tells whether what pods of a node send to other nodes is lost, and what
// the node itself sends is not: it does not forward. No tunnel is in it, since
// such packets leave and come back with the address of the node (if it is not
// told otherwise: spec.masquerade).
func (j *judge) stuck(node string) bool {
	report := j.reports[node]
	if report == nil {
		return false
	}
	passes := map[string]bool{}
	for _, r := range report.Results {
		if r.Path == HostToHost && r.OK && r.Kind != MTU {
			passes[r.Peer] = true
		}
	}
	return slices.ContainsFunc(report.Results, func(r Result) bool {
		return r.Path == PodToHost && r.Kind == ICMP && !r.OK && r.Peer != node && passes[r.Peer]
	})
}

func stuckCause(who string) string {
	return who + " drops what it forwards for pods, and not what it sends itself: a firewall does (chains of hook forward, such as FORWARD with policy DROP)"
}

func (j *judge) remedy(a *answers, broken []Path) string {
	r := a.results[broken[0]][ICMP]
	switch {
	case r.Error != "" && !r.From.IsValid():
		return "see what the nodes say of themselves (fairlead status)"
	case slices.Contains(broken, HostToPod) && j.ownPodsBroken(a.to, a.family):
		return "mend that first"
	case slices.Contains(broken, HostToPod) && !j.stuck(a.to) && a.way.Name != "":
		return "let firewalls of and between the nodes pass " + a.way.Carrier()
	default:
		return "look for the rule on both nodes (nft list ruleset)"
	}
}

func (j *judge) ownPodsBroken(node, family string) bool {
	report := j.reports[node]
	return report != nil && slices.ContainsFunc(report.Results, func(r Result) bool {
		return r.Peer == node && r.Family == family && r.Path == HostToPod && r.Kind == ICMP && !r.OK
	})
}

// kinds judges a path on which some answers came and others did not.
func (j *judge) kinds(a *answers, path Path) {
	results := a.results[path]
	if results == nil || results[ICMP].OK && results[UDP].OK && results[TCP].OK {
		return
	}
	var lost []string
	for _, kind := range []Kind{UDP, TCP} {
		if !results[kind].OK {
			lost = append(lost, map[Kind]string{UDP: "UDP", TCP: "TCP"}[kind])
		}
	}
	words := Words([]Path{path})
	switch {
	case len(lost) == 0:
		j.find(a.finding(Warn, "ICMP "+words+" is lost, other packets pass",
			first(a.said(path), "a firewall drops it"),
			"let it pass: without it, path MTU discovery fails (RFC 4890 section 4.3)"))
	case path == PodToPod:
		j.find(a.finding(Failed, fmt.Sprintf("%s from pods to pods is lost, and ICMP passes", join(lost)),
			first(a.said(path), fmt.Sprintf("a firewall drops it, or the agent of %s does not answer on port %d", a.to, Port)),
			"look for the rule on both nodes (nft list ruleset)"))
	case !j.blind(a.to):
		j.find(a.finding(Warn, fmt.Sprintf("probes by %s %s are not answered, and ICMP is", join(lost), words),
			first(a.said(path), fmt.Sprintf("a firewall of %s drops port %d, or its agent does not answer", a.to, Port)),
			fmt.Sprintf("nothing has to be done for pods; to have these probes, let port %d pass", Port)))
	}
}

// mtu judges large packets. If those between the nodes are lost, those of pods,
// which are in them, are not worth another word.
func (j *judge) mtu(a *answers) {
	for _, path := range []Path{HostToHost, PodToPod, HostToPod, PodToHost} {
		r, asked := a.results[path][MTU]
		switch {
		case !asked || a.silent(path) || r.OK && r.Found >= r.Planned:
			continue
		case r.Reduced():
			who := "the sending node itself"
			if r.From.IsValid() {
				who = r.From.String()
			}
			j.find(a.finding(Warn, fmt.Sprintf("packets %s pass up to %d bytes, not %d", Words([]Path{path}), r.Found, r.Planned),
				who+" says so to the sender, so that connections adapt (a kernel remembers for ten minutes what it was told)",
				"nothing has to be done; with larger links on the way it would be faster"))
		default:
			j.find(a.swallowed(path, r))
		}
		return
	}
}

func (a *answers) swallowed(path Path, r Result) Finding {
	what := fmt.Sprintf("large packets %s are lost: of %d bytes, none passes", Words([]Path{path}), r.Planned)
	next := "raise the MTU of the links on the way"
	if r.Found > 0 {
		what = fmt.Sprintf("large packets %s are lost: %d bytes pass, %d do not", Words([]Path{path}), r.Found, r.Planned)
		next += fmt.Sprintf(" to %d, or lower spec.mtu of networks.fairlead.io default", r.Planned)
		if path == HostToHost {
			next += fmt.Sprintf(" to %d", r.Found)
		} else {
			next += fmt.Sprintf(" by %d", r.Planned-r.Found)
		}
	}
	return a.finding(Failed, what, first(a.said(path), "a link on the way has a smaller MTU, and nobody tells the sender (a firewall drops ICMP, or the link is a switch's)"), next)
}

// loss is of packets that are lost by chance.
func (j *judge) loss(a *answers) {
	sent, lost := 0, 0
	for _, results := range a.results {
		for _, kind := range []Kind{ICMP, UDP} {
			if r := results[kind]; r.OK {
				sent, lost = sent+r.Sent, lost+r.Lost
			}
		}
	}
	const some = 3
	if lost >= some && lost*10 > sent {
		j.find(a.finding(Warn, "some packets are lost, others pass", fmt.Sprintf("%d of %d probes were not answered", lost, sent),
			"look at errors and drops of the interfaces on the way: ip -s link"))
	}
}

func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

func join(words []string) string {
	if len(words) == 2 {
		return words[0] + " and " + words[1]
	}
	return words[0]
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
