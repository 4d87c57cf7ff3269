package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/policy"
)

// Workload is who policies are looked at for together: the pods of a Deployment,
// a StatefulSet and so on, as their names and labels tell; the Service of DNS, which
// policies know as a pod; or addresses that are no pod's.
type Workload struct {
	Name string `json:"name"` // NAMESPACE/NAME, Others, or ranges
	Pods int    `json:"pods"` // 0: addresses

	namespace string // empty: addresses
	service   bool   // it is the Service of DNS, which calls nobody
	units     []*unit
}

// Others are all addresses that are no pod's and in no block of a policy.
const Others = "others"

// unit is pods of a workload that policies do not tell apart, or addresses.
type unit struct {
	like *model.Pod // that was planned in their place; nil: no pod
	pods int
	// example is an address of one of them, by family; invalid: they have none.
	example [len(model.Families)]netip.Addr
	groups  [][len(model.Families)]plan.Group // by world
	has     [len(model.Families)]bool
	queries []model.ServicePort // of the Service of DNS: it has no other ports
}

// survey is a cluster as one or several sets of policies see it: worlds that
// differ in nothing but policies.
type survey struct {
	worlds    []*world
	workloads []*Workload // sorted by name, addresses last
	unranged  int         // groups of ranges that are left out, since there are too many
}

// mostRanges is how many groups of addresses are told apart.
const mostRanges = 40

// mentions are what policies could tell pods apart by.
type mentions struct{ labels, ports map[string]bool }

func mentionsOf(snapshots []*model.Snapshot) mentions {
	m := mentions{map[string]bool{}, map[string]bool{}}
	add := func(selectors ...*model.Selector) {
		for _, s := range selectors {
			for i := 0; s != nil && i < len(s.Requirements); i++ {
				m.labels[s.Requirements[i].Key] = true
			}
		}
	}
	rule := func(r *model.PolicyRule) {
		for i := range r.Peers {
			add(r.Peers[i].Pods)
		}
		for _, port := range r.Ports {
			m.ports[port.Name] = true
		}
	}
	for _, s := range snapshots {
		for _, p := range s.Policies.All() {
			add(&p.Pods)
			for _, rules := range p.Rules {
				for i := range rules {
					rule(&rules[i])
				}
			}
		}
		for _, p := range s.ClusterPolicies.All() {
			add(p.Pods)
			for _, rules := range p.Rules {
				for i := range rules {
					rule(&rules[i].PolicyRule)
				}
			}
		}
	}
	return m
}

// key is what policies see of a pod itself: those of one key are subjects of the
// same policies.
func (m mentions) key(pod *model.Pod) string {
	var b strings.Builder
	b.WriteString(pod.Namespace)
	for key, value := range pod.Labels.All() {
		if m.labels[key] {
			fmt.Fprintf(&b, ",%s=%s", key, value)
		}
	}
	for _, port := range pod.Ports {
		if m.ports[port.Name] {
			fmt.Fprintf(&b, " %s", fmt.Sprint(port))
		}
	}
	for _, family := range model.Families {
		fmt.Fprint(&b, " ", first(pod.Addresses, family).IsValid())
	}
	return b.String()
}

// surveyOf looks at all pods. The snapshots differ only in policies.
func surveyOf(snapshots ...*model.Snapshot) (*survey, error) {
	snapshots, domains := withStandIns(snapshots)
	m, likes := mentionsOf(snapshots), map[string]*model.Pod{}
	var pods, planned []*model.Pod
	for _, pod := range snapshots[0].Pods.All() {
		if connected(pod) {
			pods = append(pods, pod)
		}
	}
	slices.SortFunc(pods, func(a, b *model.Pod) int { return strings.Compare(a.String(), b.String()) })
	for _, pod := range pods {
		if key := m.key(pod); likes[key] == nil {
			likes[key] = pod
			planned = append(planned, pod)
		}
	}
	s := &survey{}
	for _, snapshot := range snapshots {
		w, err := newWorld(snapshot, planned)
		if err != nil {
			return nil, err
		}
		s.worlds = append(s.worlds, w)
	}
	workloads, units := map[string]*Workload{}, map[string]*unit{}
	for _, pod := range pods {
		s.addPod(pod, likes[m.key(pod)], workloads, units)
	}
	slices.SortFunc(s.workloads, func(a, b *Workload) int { return strings.Compare(a.Name, b.Name) })
	s.addNameserver()
	s.addDomains(domains)
	s.addNodes()
	s.addRanges()
	return s, nil
}

func (s *survey) addPod(pod, like *model.Pod, workloads map[string]*Workload, units map[string]*unit) {
	name := workloadOf(pod)
	of := workloads[name]
	if of == nil {
		of = &Workload{Name: name, namespace: pod.Namespace}
		workloads[name] = of
		s.workloads = append(s.workloads, of)
	}
	of.Pods++
	u := &unit{like: like, groups: make([][len(model.Families)]plan.Group, len(s.worlds))}
	for _, family := range model.Families {
		addr := first(pod.Addresses, family)
		u.example[family], u.has[family] = addr, addr.IsValid()
		for i, w := range s.worlds {
			if addr.IsValid() {
				u.groups[i][family] = w.plan.GroupOf(plan.Subject{}, addr)
			}
		}
	}
	key := fmt.Sprintf("%s|%s|%q", name, like, u.groups)
	if known := units[key]; known != nil {
		known.pods++
		return
	}
	u.pods = 1
	units[key] = u
	of.units = append(of.units, u)
}

// addNameserver adds the Service of DNS, if policies know it: who may ask it does
// not follow from who may call the pods behind it.
func (s *survey) addNameserver() {
	from := s.worlds[0].snapshot
	if from.Network == nil {
		return
	}
	service, ok := from.Services.Get(from.Network.DNS.Service)
	u := &unit{groups: make([][len(model.Families)]plan.Group, len(s.worlds))}
	for i, w := range s.worlds {
		for q := range w.plan.Queries.All() {
			addr := q.At.Addr()
			family := model.FamilyOf(addr)
			u.example[family], u.has[family] = addr, true
			u.groups[i][family] = w.plan.GroupOf(plan.Subject{}, addr)
		}
	}
	if ok && u.has != [len(model.Families)]bool{} {
		u.queries = service.Ports
		s.workloads = append(s.workloads, &Workload{Name: "svc/" + service.String(), service: true, units: []*unit{u}})
	}
}

// addRanges adds the addresses that blocks of policies tell apart, and the rest.
func (s *survey) addRanges() {
	prefixes := map[netip.Prefix]bool{}
	for _, w := range s.worlds {
		for prefix := range w.plan.Ranges.All() {
			prefixes[prefix] = true
		}
	}
	var all []netip.Prefix
	for prefix := range prefixes {
		all = append(all, prefix)
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	ranges, names := map[string]*Workload{}, map[string][]string{}
	var sorted []*Workload
	for _, prefix := range all {
		addr, ok := between(prefix, all)
		if !ok {
			continue
		}
		u := s.addresses(addr)
		key := fmt.Sprintf("%q %v", u.groups, u.has)
		if ranges[key] == nil {
			ranges[key] = &Workload{units: []*unit{u}}
			sorted = append(sorted, ranges[key])
		}
		names[key] = append(names[key], prefix.String())
		ranges[key].Name = some(names[key], ", ")
	}
	if len(sorted) > mostRanges {
		s.unranged = len(sorted) - mostRanges
		sorted = sorted[:mostRanges]
	}
	others := &unit{pods: 2, groups: make([][len(model.Families)]plan.Group, len(s.worlds))}
	for family, everything := range [...]string{"0.0.0.0/0", "::/0"} {
		whole := netip.MustParsePrefix(everything)
		if addr, left := between(whole, all); left && !prefixes[whole] {
			others.example[family], others.has[family] = addr, true
		}
	}
	s.workloads = append(append(s.workloads, sorted...), &Workload{Name: Others, units: []*unit{others}})
}

// between is an address of a range that is in none of the smaller ones, into which
// the policies of another world cut it.
func between(prefix netip.Prefix, all []netip.Prefix) (addr netip.Addr, ok bool) {
	for addr = prefix.Addr(); prefix.Contains(addr); {
		at := slices.IndexFunc(all, func(p netip.Prefix) bool { return p.Bits() > prefix.Bits() && p.Contains(addr) })
		if at < 0 {
			return addr, true
		}
		addr = last(all[at]).Next()
	}
	return netip.Addr{}, false
}

// last is the last address of a range.
func last(of netip.Prefix) netip.Addr {
	bytes := of.Addr().AsSlice()
	for bit := of.Bits(); bit < of.Addr().BitLen(); bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	addr, _ := netip.AddrFromSlice(bytes)
	return addr
}

// addresses are those of the range that an address is in.
func (s *survey) addresses(addr netip.Addr) *unit {
	u := &unit{pods: 2, groups: make([][len(model.Families)]plan.Group, len(s.worlds))}
	family := model.FamilyOf(addr)
	u.example[family], u.has[family] = addr, true
	for i, w := range s.worlds {
		u.groups[i][family] = rangeOf(w.plan, addr)
	}
	return u
}

// rangeOf is the group of an address that is no pod's.
func rangeOf(p *plan.Plan, addr netip.Addr) plan.Group {
	for bits := addr.BitLen(); bits >= 0; bits-- {
		prefix, _ := addr.Prefix(bits)
		if group, ok := p.Ranges.Get(prefix); ok {
			return group
		}
	}
	return plan.Others
}

// Labels that controllers give their pods.
const (
	templateHash = "pod-template-hash"                  // of a Deployment
	revisionHash = "controller-revision-hash"           // of a StatefulSet or DaemonSet
	podName      = "statefulset.kubernetes.io/pod-name" // of a StatefulSet
	jobName      = "batch.kubernetes.io/job-name"
)

// workloadOf names what a pod is of: NAMESPACE/NAME. Its owner is not in a
// snapshot; its name and labels tell as much.
func workloadOf(pod *model.Pod) string {
	name := pod.Name
	if hash, ok := pod.Labels.Get(templateHash); ok {
		if before, _, found := strings.Cut(name, "-"+hash+"-"); found {
			name = before
		}
	} else if job, ok := pod.Labels.Get(jobName); ok {
		name = job
	} else if _, set := pod.Labels.Get(revisionHash); set {
		name = name[:max(strings.LastIndexByte(name, '-'), 0)]
	} else if _, set := pod.Labels.Get(podName); set {
		name = name[:max(strings.LastIndexByte(name, '-'), 0)]
	}
	if name == "" {
		name = pod.Name
	}
	return pod.Namespace + "/" + name
}
