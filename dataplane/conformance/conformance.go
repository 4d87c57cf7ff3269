// Package conformance is the suite that every data plane passes, on a real
// kernel or a fake one: what must hold whatever the plan is. It is for tests
// only.
package conformance

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
)

// Subject is one kernel with a data plane for it. Its methods fail the test
// that it was made for if they cannot do their work.
type Subject interface {
	// Start returns a data plane as a process that starts has it, over the
	// kernel as it is.
	Start() dataplane.Dataplane
	// Observed is what the kernel holds of ours, found without the data
	// plane's code. Sysctls may be missing in it.
	Observed() *plan.Node
	// Sysctl reads a setting by its path below /proc/sys.
	Sysctl(path string) string
	// Foreign is text of what is not ours.
	Foreign() string
	// Changes lists what changed of ours since the last call, as a verb, a
	// kind and a key: "remove route 10.244.2.0/24". Translation is left out:
	// its table is replaced at each start.
	Changes() []string
	// Lookup asks the kernel for its way to a destination. Masquerade is left
	// out of the answer.
	Lookup(packet plan.Packet) plan.Hop

	AddDevice(name string, addresses ...netip.Prefix)
	RemoveDevice(name string)
	// AddForeignRoute adds a route with the metric that ours have.
	AddForeignRoute(destination netip.Prefix, device string)
	RemoveForeignRoute(destination netip.Prefix)
}

// Run runs the suite. subject makes a new kernel without devices.
func Run(t *testing.T, subject func(*testing.T) Subject) {
	cases := map[string]func(*suite){
		"AppliesWhole":          (*suite).appliesWhole,
		"RepeatsNothing":        (*suite).repeatsNothing,
		"RestartChangesNothing": (*suite).restartChangesNothing,
		"RemovesDebris":         (*suite).removesDebris,
		"LeavesUnknownParts":    (*suite).leavesUnknownParts,
		"ForeignRouteStays":     (*suite).foreignRouteStays,
		"MissingDevice":         (*suite).missingDevice,
		"DeviceOfPodGone":       (*suite).deviceOfPodGone,
		"MissingSource":         (*suite).missingSource,
		"TunnelLost":            (*suite).tunnelLost,
		"UplinkLost":            (*suite).uplinkLost,
		"TunnelChanges":         (*suite).tunnelChanges,
		"Cancelled":             (*suite).cancelled,
		"AnyOrder":              (*suite).anyOrder,
		"LocalAddresses":        (*suite).localAddresses,
	}
	for name, run := range cases {
		t.Run(name, func(t *testing.T) {
			s := &suite{t: t, Subject: subject(t)}
			s.AddDevice(uplink, uplinkNetworks()...)
			for pod := range pods {
				s.AddDevice(podDevice(pod))
			}
			s.Changes()
			run(s)
		})
	}
}

// suite is one case on a kernel of its own.
type suite struct {
	t *testing.T
	Subject
}

// apply applies a plan that the kernel can carry out whole.
func (s *suite) apply(to dataplane.Dataplane, node *plan.Node) {
	s.t.Helper()
	problems, err := to.Apply(s.t.Context(), node)
	if err != nil {
		s.t.Fatalf("apply: %v", err)
	}
	if len(problems) != 0 {
		s.t.Fatalf("applied a good plan, got problems %v", problems)
	}
}

// holds compares the kernel with a plan.
func (s *suite) holds(node *plan.Node) {
	s.t.Helper()
	if want, got := text(node), text(s.Observed()); got != want {
		s.t.Fatalf("the kernel differs from the plan:\n%s", differences(want, got))
	}
	if node.Route == nil {
		return
	}
	for path, want := range node.Route.Sysctls.All() {
		if got := s.Sysctl(path); got != want {
			s.t.Fatalf("sysctl %s is %q, want %q", path, got, want)
		}
	}
}

// text is of a plan without its sysctls: those that a plan no longer has stay
// in the kernel.
func text(node *plan.Node) string {
	bare := *node
	bare.Problems = nil
	if bare.Route != nil {
		copied := *bare.Route
		copied.Sysctls = model.Map[string, string]{}
		bare.Route = &copied
	}
	return plan.Text(&bare)
}

func differences(want, got string) string {
	var lines []string
	for line := range strings.Lines(want) {
		if !strings.Contains(got, line) {
			lines = append(lines, "missing    "+line)
		}
	}
	for line := range strings.Lines(got) {
		if !strings.Contains(want, line) {
			lines = append(lines, "unexpected "+line)
		}
	}
	return strings.Join(lines, "")
}

// unchanged fails if anything of ours has changed since the last look.
func (s *suite) unchanged(when string) {
	s.t.Helper()
	if changes := s.Changes(); len(changes) != 0 {
		s.t.Fatalf("%s, the data plane did:\n%s", when, strings.Join(changes, "\n"))
	}
}

func (s *suite) appliesWhole() {
	node := world().plan()
	s.apply(s.Start(), node)
	s.holds(node)
	s.agrees(node)
}

// agrees compares the kernel's ways with the oracle's.
func (s *suite) agrees(node *plan.Node) {
	s.t.Helper()
	for _, destination := range destinations() {
		packet := plan.Packet{Destination: destination}
		want, got := plan.Verdict(node, packet), s.Lookup(packet)
		want.Masquerade = false
		if got != want {
			s.t.Fatalf("to %s the kernel has %+v, the oracle %+v", destination, got, want)
		}
	}
}

func (s *suite) repeatsNothing() {
	node := world().plan()
	subject := s.Start()
	s.apply(subject, node)
	s.Changes()
	s.apply(subject, node)
	s.unchanged("applying the same plan again")
}

func (s *suite) restartChangesNothing() {
	node := world().plan()
	s.apply(s.Start(), node)
	s.Changes()
	s.apply(s.Start(), node)
	s.unchanged("at a restart")
	s.holds(node)
}

func (s *suite) removesDebris() {
	before, after := world(), world()
	before.addPeers(0, 1, 2, 3, 4, 5)
	before.network.VXLANVNI = 77
	s.AddForeignRoute(netip.MustParsePrefix("203.0.113.0/24"), uplink)
	s.AddForeignRoute(netip.MustParsePrefix("2001:db8:113::/64"), uplink)
	foreign := s.Foreign()
	s.apply(s.Start(), before.plan())
	s.apply(s.Start(), after.plan())
	s.holds(after.plan())
	if now := s.Foreign(); now != foreign {
		s.t.Fatalf("what is not ours changed:\n%s", differences(foreign, now))
	}
}

func (s *suite) leavesUnknownParts() {
	node := world().plan()
	subject := s.Start()
	s.apply(subject, node)
	s.Changes()
	s.apply(subject, &plan.Node{Name: node.Name})
	s.apply(s.Start(), &plan.Node{Name: node.Name})
	s.unchanged("applying a plan that knows nothing")
	s.holds(node)
}

// problem finds the one problem of an item.
func (s *suite) problem(problems []model.Problem, field, reason string) {
	s.t.Helper()
	if len(problems) != 1 || problems[0].Field != field || problems[0].Reason != reason {
		s.t.Fatalf("got problems %v, want one of %s, %s", problems, field, reason)
	}
	if problems[0].Kind != "Node" || problems[0].Name != self || problems[0].Remedy == "" {
		s.t.Fatalf("the problem names no node or remedy: %+v", problems[0])
	}
}

func (s *suite) foreignRouteStays() {
	node := world().plan()
	for _, taken := range []netip.Prefix{podRange(1), podRange6(1)} {
		subject := s.Start()
		s.apply(subject, without(node, taken))
		s.AddForeignRoute(taken, podDevice(0))
		foreign := s.Foreign()
		problems, err := subject.Apply(s.t.Context(), node)
		if err != nil {
			s.t.Fatal(err)
		}
		s.problem(problems, "route "+taken.String(), "Conflict")
		s.holds(without(node, taken))
		if now := s.Foreign(); now != foreign {
			s.t.Fatalf("what is not ours changed:\n%s", differences(foreign, now))
		}
		s.RemoveForeignRoute(taken)
		s.apply(subject, node)
		s.holds(node)
	}
}

// without is a plan that lacks a route.
func without(node *plan.Node, destination netip.Prefix) *plan.Node {
	fewer, routes := *node, *node.Route
	routes.Routes = routes.Routes.Without(destination)
	fewer.Route = &routes
	return &fewer
}

func (s *suite) missingDevice() {
	node, routes := *world().plan(), *world().plan().Route
	complete := &node
	lonely := netip.MustParsePrefix("10.244.0.200/32")
	routes.Routes = routes.Routes.With(lonely, route.Route{Device: "absent"})
	complete.Route = &routes
	subject := s.Start()
	for range 2 {
		problems, err := subject.Apply(s.t.Context(), complete)
		if err != nil {
			s.t.Fatal(err)
		}
		s.problem(problems, "route "+lonely.String(), "DeviceMissing")
		s.holds(without(complete, lonely))
	}
	s.AddDevice("absent")
	s.apply(subject, complete)
	s.holds(complete)
}

func (s *suite) missingSource() {
	node, routes := *world().plan(), *world().plan().Route
	lonely := netip.MustParsePrefix("10.244.0.200/32")
	routes.Routes = routes.Routes.With(lonely, route.Route{Device: podDevice(0), Source: netip.MustParseAddr("192.0.2.99")})
	node.Route = &routes
	problems, err := s.Start().Apply(s.t.Context(), &node)
	if err != nil {
		s.t.Fatal(err)
	}
	s.problem(problems, "route "+lonely.String(), "SourceMissing")
	s.holds(without(&node, lonely))
}

// localAddresses become the node's own, and are not any more, also by a process
// that starts.
func (s *suite) localAddresses() {
	bare := world().plan()
	node, routes := *bare, *bare.Route
	for i, prefix := range []string{"10.96.0.10/32", "fd96::a/128"} {
		routes.Routes = routes.Routes.With(netip.MustParsePrefix(prefix), route.Route{Local: true, Device: "lo", Source: uplinkNetworks()[i].Addr()})
	}
	node.Route = &routes
	subject := s.Start()
	s.apply(subject, &node)
	s.holds(&node)
	s.Changes()
	s.apply(s.Start(), &node)
	s.unchanged("at a restart")
	s.apply(subject, bare)
	s.holds(bare)
	s.apply(subject, &node)
	s.RemoveDevice(uplink) // with which their source goes
	s.AddDevice(uplink, uplinkNetworks()...)
	subject.(dataplane.Forgetter).Forget()
	s.apply(subject, &node)
	s.holds(&node)
	s.apply(s.Start(), bare)
	s.holds(bare)
}

// deviceOfPodGone: the kernel has removed the route before the plan does.
func (s *suite) deviceOfPodGone() {
	w := world()
	subject := s.Start()
	s.apply(subject, w.plan())
	s.RemoveDevice(podDevice(0))
	w.detach(0)
	s.apply(subject, w.plan())
	s.holds(w.plan())
}

// tunnelLost: a process that starts finds its device without all that was on
// it, and brings it back.
func (s *suite) tunnelLost() {
	node := world().plan()
	s.apply(s.Start(), node)
	for name := range node.Route.VXLANs.All() {
		s.RemoveDevice(name)
	}
	s.apply(s.Start(), node)
	s.holds(node)
}

// uplinkLost: what the kernel drops with an interface, on others as well, is back
// as soon as the data plane is told to look.
func (s *suite) uplinkLost() {
	node := world().plan()
	subject := s.Start()
	s.apply(subject, node)
	s.RemoveDevice(uplink)
	s.AddDevice(uplink, uplinkNetworks()...)
	subject.(dataplane.Forgetter).Forget()
	s.apply(subject, node)
	s.holds(node)
	s.agrees(node)
}

// tunnelChanges: a new MAC and MTU of the tunnel leave nothing behind that was
// on it before.
func (s *suite) tunnelChanges() {
	node := world().plan()
	subject := s.Start()
	s.apply(subject, node)
	changed, routes := *node, *node.Route
	for name, vxlan := range routes.VXLANs.All() {
		vxlan.MAC[5]++
		vxlan.MTU -= 50
		routes.VXLANs = routes.VXLANs.With(name, vxlan)
	}
	changed.Route = &routes
	s.apply(subject, &changed)
	s.holds(&changed)
}

func (s *suite) cancelled() {
	node := world().plan()
	subject := s.Start()
	ctx, cancel := context.WithCancel(s.t.Context())
	cancel()
	if _, err := subject.Apply(ctx, node); err == nil {
		s.t.Fatal("no error of a cancelled Apply")
	}
	s.apply(subject, node)
	s.holds(node)
}

// anyOrder walks through random worlds. Whatever came before, the kernel holds
// the last plan; and a destination that was and is in the plan is never without
// its route.
func (s *suite) anyOrder() {
	seeds := uint64(4)
	if testing.Short() { // an emulated machine
		seeds = 1
	}
	for seed := range seeds {
		w := world()
		random := randomOf(seed)
		subject := s.Start()
		last := w.plan()
		s.apply(subject, last)
		for step := range 40 {
			s.Changes()
			w.mutate(random)
			next := w.plan()
			if random.IntN(8) == 0 {
				subject = s.Start()
			}
			s.apply(subject, next)
			s.keeps(last, next, fmt.Sprintf("seed %d, step %d", seed, step))
			s.holds(next)
			s.agrees(next)
			last = next
		}
	}
}

// keeps fails if a route was removed that both plans have. Routes through a
// tunnel that is made anew cannot be kept.
func (s *suite) keeps(last, next *plan.Node, when string) {
	s.t.Helper()
	for _, change := range s.Changes() {
		text, ok := strings.CutPrefix(change, "remove route ")
		if !ok {
			continue
		}
		destination := netip.MustParsePrefix(text)
		old, had := last.Route.Routes.Get(destination)
		_, has := next.Route.Routes.Get(destination)
		if had && has && !remade(last, next, old.Device) {
			s.t.Fatalf("%s: the route to %s was gone for a moment", when, destination)
		}
	}
}

func remade(last, next *plan.Node, device string) bool {
	old, had := last.Route.VXLANs.Get(device)
	now, has := next.Route.VXLANs.Get(device)
	old.MTU, old.MAC = now.MTU, now.MAC
	return had && (!has || old != now)
}
