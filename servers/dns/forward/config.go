package forward

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/fairlead-net/fairlead/model"
	planned "github.com/fairlead-net/fairlead/plan/dns"
)

// lookEach is how often resolv.conf is looked at, and whether upstreams are down
// that were for downLong. A file that is replaced cannot be watched well through a
// mount; reading one of a hundred bytes costs nothing.
const (
	lookEach = 5 * time.Second
	downLong = 10 * time.Second
)

// Follow makes other options apply; the same as before cost nothing. It does not
// block. What is kept is still given while no upstream says otherwise.
func (f *Forwarder) Follow(options Options) {
	next := options.withDefaults()
	if reflect.DeepEqual(next, f.options.Swap(next)) {
		return
	}
	f.cache.resize(int(next.CacheBytes))
	f.configure()
	wake(f.changed)
}

func (f *Forwarder) noteChange() { wake(f.noted) }

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run looks after upstreams and resolv.conf until the context ends. It returns nil
// when nobody is asked any more and all connections are closed.
func (f *Forwarder) Run(ctx context.Context) error {
	watched := map[*upstream]context.CancelFunc{}
	var watchers sync.WaitGroup
	look := time.NewTicker(lookEach)
	defer look.Stop()
	var told []model.Problem
	for {
		f.attend(watched, &watchers)
		if problems := f.Problems(); !slices.Equal(problems, told) {
			told = problems
			f.tell(problems...)
		}
		select {
		case <-ctx.Done():
			f.flights.close()
			f.stop(errStopped)
			watchers.Wait()
			f.flights.running.Wait()
			f.asking.Wait()
			for _, u := range f.routes.Load().upstreams {
				u.transport.close()
			}
			return nil
		case <-f.changed:
		case <-f.noted:
		case <-look.C:
			f.configure()
		}
	}
}

// attend watches upstreams that are new, and closes those that are gone.
func (f *Forwarder) attend(watched map[*upstream]context.CancelFunc, watchers *sync.WaitGroup) {
	now := f.routes.Load().upstreams
	for u, cancel := range watched {
		if !slices.Contains(now, u) {
			cancel()
			delete(watched, u)
			watchers.Go(func() { f.retire(u) })
		}
	}
	for _, u := range now {
		if watched[u] == nil {
			ctx, cancel := context.WithCancel(f.base)
			watched[u] = cancel
			watchers.Go(func() { f.watch(ctx, u) })
		}
	}
}

// retire closes an upstream when what it has been asked is answered.
func (f *Forwarder) retire(u *upstream) {
	timer := time.NewTimer(f.options.Load().Timeout)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.base.Done():
	}
	u.transport.close()
}

// configure makes routes of the options and resolv.conf. Upstreams that stay are
// kept, with what is known of them. If resolv.conf says nothing of use, as while
// it is written, what it has said before goes on to apply.
func (f *Forwarder) configure() {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.options.Load()
	root := o.Upstreams
	var problems []model.Problem
	if len(root) == 0 {
		conf, err := readResolvConf(o.Root, o.ResolvConf)
		root, problems = o.confUpstreams(conf, err)
		if len(root) == 0 {
			root, _ = o.confUpstreams(f.conf, nil)
		} else {
			f.conf = conf
		}
	}
	wanted := map[string][]model.Upstream{rootName: root}
	for _, stub := range o.Stubs {
		zone, problem := o.stubZone(stub)
		if problem != nil {
			problems = append(problems, *problem)
			continue
		}
		wanted[zone] = stub.Upstreams
	}
	for zone, list := range wanted {
		list, ours := o.withoutOwn(zone, list)
		wanted[zone] = list
		problems = append(problems, ours...)
	}
	f.problem = problems
	f.adopt(wanted, o.Ordered)
}

// stubZone is a stub domain on the wire, if it is one that can be.
func (o *Options) stubZone(stub model.StubDomain) (string, *model.Problem) {
	problem := &model.Problem{Kind: "Network", Name: "default", Field: "spec.dns.stubDomains", Reason: "StubDomainInvalid"}
	zone := miekg.CanonicalName(stub.Zone)
	wire := make([]byte, maxName)
	n, err := miekg.PackDomainName(zone, wire, 0, nil, false)
	switch {
	case err != nil:
		problem.Message = fmt.Sprintf("%.80q is not a domain name; it is ignored", stub.Zone)
		problem.Remedy = "write a name such as corp.example"
	case o.Zone != "" && miekg.IsSubDomain(miekg.CanonicalName(o.Zone), zone):
		problem.Message = fmt.Sprintf("%s is in the cluster's own domain %s, which is answered here; it is ignored", stub.Zone, o.Zone)
		problem.Remedy = "remove it, or choose a domain outside of " + o.Zone
	case len(stub.Upstreams) == 0:
		problem.Message = fmt.Sprintf("%s has no upstreams; it is ignored", stub.Zone)
		problem.Remedy = "name the servers that know it"
	default:
		return string(wire[:n]), nil
	}
	return "", problem
}

// withoutOwn leaves out upstreams that are ourselves.
func (o *Options) withoutOwn(zone string, list []model.Upstream) (kept []model.Upstream, problems []model.Problem) {
	for _, to := range list {
		if !slices.Contains(o.Own, to.At.Addr()) {
			kept = append(kept, to)
			continue
		}
		field := "spec.dns.upstreams"
		if zone != rootName {
			field = "spec.dns.stubDomains"
		}
		problems = append(problems, model.Problem{
			Kind: "Network", Name: "default", Field: field, Reason: "UpstreamIsOurselves",
			Message: fmt.Sprintf("%s is where the cluster's DNS itself answers; it is not asked", to),
			Remedy:  "name servers outside of the cluster",
		})
	}
	return kept, problems
}

// adopt makes routes. When they change, what others have said is only of use
// while those who are asked now say nothing.
func (f *Forwarder) adopt(wanted map[string][]model.Upstream, ordered bool) {
	old := f.routes.Load()
	if old.same(wanted, ordered) {
		return
	}
	known := map[model.Upstream]*upstream{}
	for _, u := range old.upstreams {
		known[u.to] = u
	}
	next := &routes{groups: map[string]*group{}}
	used := map[*upstream]bool{}
	for _, zone := range slices.SortedFunc(maps.Keys(wanted), func(a, b string) int { return len(a) - len(b) }) {
		g := &group{zone: zone, ordered: ordered}
		for _, to := range wanted[zone] {
			u := known[to]
			if u == nil {
				u = newUpstream(to, f.connect(to), zone)
				known[to] = u
			}
			if !slices.Contains(g.upstreams, u) {
				g.upstreams = append(g.upstreams, u)
			}
			used[u] = true
		}
		next.groups[zone] = g
	}
	next.upstreams = slices.SortedFunc(maps.Keys(used), func(a, b *upstream) int { return strings.Compare(a.to.String(), b.to.String()) })
	f.routes.Store(next)
	f.cache.renew()
	wake(f.changed)
}

// same tells whether routes are as wanted.
func (r *routes) same(wanted map[string][]model.Upstream, ordered bool) bool {
	if len(r.groups) != len(wanted) {
		return false
	}
	for zone, list := range wanted {
		g := r.groups[zone]
		if g == nil || g.ordered != ordered || !slices.EqualFunc(g.upstreams, list, func(u *upstream, to model.Upstream) bool { return u.to == to }) {
			return false
		}
	}
	return true
}

// Problems are what there is to mend now, sorted.
func (f *Forwarder) Problems() []model.Problem {
	f.mu.Lock()
	problems := slices.Clone(f.problem)
	f.mu.Unlock()
	o := f.options.Load()
	r := f.routes.Load()
	for _, u := range r.upstreams {
		if u.standing().looping {
			problems = append(problems, o.loopProblem(u))
		}
	}
	for _, g := range r.groups {
		if problem, ok := o.downProblem(g); ok {
			problems = append(problems, problem)
		}
	}
	slices.SortFunc(problems, model.Problem.Compare)
	return slices.Compact(problems)
}

func (o *Options) loopProblem(u *upstream) model.Problem {
	return model.Problem{
		Kind: "Node", Name: o.Node, Reason: "UpstreamLoops",
		Message: fmt.Sprintf("the upstream %s asks the cluster's DNS itself what it is asked, so it is not asked", u.to),
		Remedy:  "make it ask other servers, or name others in Network/default, spec.dns.upstreams; it is looked at again every " + loopProbe.String(),
	}
}

// downProblem is that nobody answers who is asked about a domain, for a while.
func (o *Options) downProblem(g *group) (model.Problem, bool) {
	var why error
	down := 0
	for _, u := range g.upstreams {
		switch s := u.standing(); {
		case s.looping:
		case !s.down || time.Since(s.since) < downLong:
			return model.Problem{}, false
		default:
			down++
			why = fmt.Errorf("%s: %s", u.to, describeError(s.why))
		}
	}
	if down == 0 {
		return model.Problem{}, false
	}
	about := "names outside of the cluster"
	if g.zone != rootName {
		about = "names in " + strings.TrimSuffix(nameText(g.zone), ".")
	}
	return model.Problem{
		Kind: "Node", Name: o.Node, Reason: "UpstreamsDown",
		Message: fmt.Sprintf("no upstream for %s answers (%v)", about, why),
		Remedy:  "see whether the node reaches it, and firewalls between; it is tried all the time",
	}, true
}

// nameOf is the name of a question as the plan has it.
func nameOf(a *ask) planned.Name { return planned.Name(a.name) }
