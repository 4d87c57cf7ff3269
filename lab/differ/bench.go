package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// bench is a world of Fairlead's beside one of kube-proxy's.
type bench struct {
	plane    *plane
	proxy    *proxy // nil: there is none
	subjects []*subject
	clients  []client
	tally    tally
}

// stock is the subject of whom exceptions are known.
const stock = "kube-proxy"

// newBench starts what is to be compared; without a program, there is no
// kube-proxy. What it returns is to be closed, with an error as well.
func newBench(ctx context.Context, program, dir string, c config) (b *bench, err error) {
	b = &bench{clients: clients(), tally: tally{excused: map[string]int{}, again: map[string]int{}}}
	own, err := newWorld()
	b.subjects = append(b.subjects, &subject{name: "Fairlead", world: own, stays: map[stay]stayed{}})
	b.plane = newPlane(own, c)
	if err != nil || program == "" {
		return b, err
	}
	other, err := newWorld()
	b.subjects = append(b.subjects, &subject{name: stock, world: other})
	if err == nil {
		b.proxy, err = startProxy(program, dir, other, c)
	}
	if err == nil {
		err = b.proxy.locate(ctx)
	}
	return b, err
}

func (b *bench) close() {
	if b.proxy != nil {
		b.proxy.close()
	}
	for _, s := range b.subjects {
		s.world.close()
	}
}

// carry has both follow a change of objects, which are all that there are.
func (b *bench) carry(ctx context.Context, changes []change, objects []metav1.Object) error {
	if b.proxy != nil {
		for _, c := range changes {
			if c.gone {
				b.proxy.remove(c.object)
			} else {
				b.proxy.put(c.object)
			}
		}
	}
	if err := b.plane.follow(ctx, objects); err != nil {
		return err
	}
	if b.proxy != nil {
		if err := b.proxy.settle(ctx); err != nil {
			return err
		}
	}
	for _, s := range b.subjects {
		b.plane.forgetStays(s.stays)
		if err := s.world.forget(); err != nil {
			return err
		}
	}
	return nil
}

// How many calls are compared after each step: of each Service that changed, and
// of any.
const (
	perChange = 24
	perState  = 120
)

// try takes the next step and compares.
func (b *bench) try(ctx context.Context, s *state) ([]finding, error) {
	changed, changes := s.step()
	if err := b.carry(ctx, changes, s.all()); err != nil {
		return nil, err
	}
	var questions []question
	asked := map[call]bool{}
	ask := func(c call) {
		if asked[c] {
			return
		}
		asked[c] = true
		if b.plane.contested(c) {
			b.tally.contested++
		}
		questions = append(questions, b.plane.question(c))
	}
	add := func(slot int) {
		protocol, to := s.aim(slot)
		ask(call{&b.clients[s.random.IntN(len(b.clients))], protocol, to})
	}
	for key, last := range b.subjects[0].stays { // who stays is to stay
		if slices.ContainsFunc(changed, func(slot int) bool { return serviceName(slot) == key.pool.Service.String() }) {
			ask(last.call)
		}
	}
	for _, slot := range changed {
		for range min(perChange, 480/len(changed)) {
			add(slot)
		}
	}
	for range perState {
		add(s.random.IntN(slots))
	}
	return b.compare(questions)
}

// compare asks in all worlds at once.
func (b *bench) compare(questions []question) (findings []finding, err error) {
	b.tally.count(questions)
	type result struct {
		findings []finding
		tally    tally
		err      error
	}
	results := make(chan result)
	for _, s := range b.subjects {
		go func() {
			r := result{tally: tally{again: map[string]int{}}}
			r.findings, r.err = s.judge(questions, &r.tally)
			results <- r
		}()
	}
	for range b.subjects {
		r := <-results
		err = cmp.Or(err, r.err)
		b.tally.calls += r.tally.calls
		for name, count := range r.tally.again {
			b.tally.again[name] += count
		}
		for _, f := range r.findings {
			if name := b.plane.excuse(f); name != "" && f.subject == stock {
				b.tally.excused[name]++
				continue
			}
			findings = append(findings, f)
		}
	}
	return findings, err
}

func (t *tally) String() string {
	text := fmt.Sprintf("%d questions (%d to endpoints, %d refused, %d dropped; %d of contested addresses), %d calls",
		t.forwarded+t.refused+t.dropped, t.forwarded, t.refused, t.dropped, t.contested, t.calls)
	for _, name := range slices.Sorted(maps.Keys(t.again)) {
		text += fmt.Sprintf("; asked %s again after silence %d ×", name, t.again[name])
	}
	for _, name := range slices.Sorted(maps.Keys(t.excused)) {
		text += fmt.Sprintf("; known: %d × %s", t.excused[name], name)
	}
	return text
}

// describe has the objects that a call may be about, for who looks into a
// finding.
func (s *state) describe(c call) string {
	var text strings.Builder
	for _, object := range s.all() {
		service, ok := object.(*corev1.Service)
		if !ok || !claims(service, c) {
			continue
		}
		for _, part := range s.all() {
			slice, ok := part.(*discoveryv1.EndpointSlice)
			if part == object || ok && slice.Labels[discoveryv1.LabelServiceName] == service.Name {
				content, err := yaml.Marshal(typed(part))
				if err == nil {
					fmt.Fprintf(&text, "---\n%s", content)
				}
			}
		}
	}
	return text.String()
}

// claims tells whether a Service has the address that is called.
func claims(service *corev1.Service, c call) bool {
	addr := c.to.Addr().String()
	own := slices.Concat(service.Spec.ClusterIPs, service.Spec.ExternalIPs, ingresses(service))
	return slices.Contains(own, addr) ||
		slices.ContainsFunc(service.Spec.Ports, func(port corev1.ServicePort) bool { return port.NodePort == int32(c.to.Port()) })
}
