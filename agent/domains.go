package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// domains knows the addresses that names in policies lead to, for as long as they
// do: the DNS server of this node tells what it is about to answer. It keeps them
// in a file, so that an agent that starts goes on where the last one ended.
type domains struct {
	feed    *model.Feed
	applied func(ctx context.Context, revision uint64) error // waits for it
	// served tells whether a DNS server is there to tell, and whether one is too old to.
	served  func() (does, old bool)
	path    string // of the file, on a tmpfs
	notices *notices
	log     *slog.Logger

	wake chan struct{} // of one element: Run has something to do

	mu        sync.Mutex
	policies  model.Map[string, *model.ClusterPolicy] // of which wanted is
	wanted    *model.Domains                          // nil: not known yet
	sure      bool                                    // else wanted is what an earlier agent has known
	lapsed    map[resolvedKey]time.Time               // those whose time is over, and when nobody needs to know any more
	ends      map[resolvedKey]time.Time
	counts    map[string]int  // addresses of names, by pattern
	forgotten uint64          // addresses, since no policy has their names any more
	full      map[string]bool // patterns that had too many since they had few

	saving sync.Mutex // taken before mu
	made   uint64     // changes, guarded by mu
	saved  uint64     // of those, guarded by saving
}

// resolvedKey is an address that a name leads to.
type resolvedKey struct {
	name string
	addr netip.Addr
}

const (
	// maxResolved bounds the addresses of one name, or of all names of a pattern. The
	// API wants a hundred of a name.
	maxResolved = 4096
	// maxTTL bounds for how long an address is kept without being told again.
	maxTTL = 24 * time.Hour
	// lapsedTime is for how long it is known that a name has led to an address, of
	// maxLapsed addresses: connections that were made then may last as long.
	lapsedTime = 24 * time.Hour
	maxLapsed  = 16384
	// expiryPause is between two looks at what is over, so that what ends together
	// is one change.
	expiryPause = time.Second
)

func newDomains(c *Config, feed *model.Feed, served func() (does, old bool), notices *notices, path string) *domains {
	return &domains{
		feed: feed, served: served, path: path, notices: notices, log: c.Log, wake: make(chan struct{}, 1),
		ends: map[resolvedKey]time.Time{}, lapsed: map[resolvedKey]time.Time{}, counts: map[string]int{}, full: map[string]bool{},
	}
}

// begin lets the feed have what an earlier agent knew, and says who carries out what
// is learned, which it returns.
func (d *domains) begin(by *loop) *loop {
	d.applied = func(ctx context.Context, revision uint64) error {
		_, err := by.waitApplied(ctx, revision)
		return err
	}
	d.recall()
	return by
}

// want returns the names that a snapshot's policies have, and how often addresses were
// forgotten before their time.
func (d *domains) want(s *model.Snapshot) (names []string, forgotten uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.follow(s).All(), d.forgotten
}

// follow is want, of who has mu.
func (d *domains) follow(s *model.Snapshot) *model.Domains {
	if !s.PoliciesKnown {
		return d.wanted
	}
	if d.sure && s.ClusterPolicies == d.policies {
		return d.wanted
	}
	next := model.DomainsOf(s.ClusterPolicies)
	if d.wanted == nil || !slices.Equal(d.wanted.All(), next.All()) {
		d.wanted = next
		d.made++
		d.count()
	}
	d.policies, d.sure = s.ClusterPolicies, true
	return d.wanted
}

// count counts what there is of each pattern, and forgets what is of none. mu is
// held.
func (d *domains) count() {
	clear(d.counts)
	for key := range d.ends {
		fits := false
		for pattern := range d.wanted.Matches(key.name) {
			d.counts[pattern]++
			fits = true
		}
		if !fits {
			delete(d.ends, key)
			d.forgotten++
		}
	}
	for key := range d.lapsed {
		if !d.wanted.Fits(key.name) {
			delete(d.lapsed, key)
		}
	}
}

// Learn takes what pods are about to be told, and returns when packets to the
// addresses pass, as far as policies allow.
func (d *domains) Learn(ctx context.Context, found []model.Resolution) error {
	for {
		snapshot, changed := d.feed.Latest()
		if snapshot.PoliciesKnown || d.recalled() {
			break
		}
		select { // else nobody knows what is wanted
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
	revision := d.take(found, time.Now())
	if err := d.applied(ctx, revision); err != nil {
		return err
	}
	d.save()
	return nil
}

// recalled tells whether an earlier agent has said what is wanted.
func (d *domains) recalled() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wanted != nil
}

// take notes what was found, and returns the revision that has it.
func (d *domains) take(found []model.Resolution, now time.Time) (revision uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, _ := d.feed.Latest()
	wanted := d.follow(s)
	var changed []netip.Addr
	for _, resolution := range found {
		patterns := slices.Collect(wanted.Matches(resolution.Name))
		if len(patterns) == 0 {
			continue
		}
		ends := now.Add(min(time.Duration(resolution.TTL)*time.Second, maxTTL) + model.ResolutionGrace)
		for _, addr := range resolution.Addresses {
			key := resolvedKey{resolution.Name, addr.Unmap()}
			was, known := d.ends[key]
			if !known && d.exceeds(patterns) {
				continue
			}
			if !known {
				changed = append(changed, key.addr)
				delete(d.lapsed, key)
				for _, pattern := range patterns {
					d.counts[pattern]++
				}
			}
			if ends.After(was) {
				d.ends[key] = ends
				d.made++
			}
		}
	}
	signalWake(d.wake)
	return d.publish(changed)
}

func signalWake(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// exceeds tells whether a pattern has as many addresses as it may. What is there
// stays: a client that asks for ever new names must not cut others.
func (d *domains) exceeds(patterns []string) (exceeds bool) {
	for _, pattern := range patterns {
		if d.counts[pattern] >= maxResolved {
			d.full[pattern], exceeds = true, true
		}
	}
	return exceeds
}

// publish gives the feed the names of addresses as they are now. mu is held.
func (d *domains) publish(addresses []netip.Addr) (revision uint64) {
	all := map[netip.Addr]*model.Resolved{}
	for _, addr := range addresses {
		all[addr] = &model.Resolved{}
	}
	if len(all) > 0 {
		for key := range d.ends {
			if of, ok := all[key.addr]; ok {
				of.Names = append(of.Names, key.name)
			}
		}
		for key := range d.lapsed {
			if of, ok := all[key.addr]; ok {
				of.Lapsed = append(of.Lapsed, key.name)
			}
		}
	}
	return d.feed.Edit(func(s *model.Snapshot) {
		for addr, resolved := range all {
			if len(resolved.Names)+len(resolved.Lapsed) == 0 {
				s.Resolved = s.Resolved.Without(addr)
				continue
			}
			slices.Sort(resolved.Names)
			slices.Sort(resolved.Lapsed)
			s.Resolved = s.Resolved.With(addr, resolved)
		}
	})
}

// Run takes out what is over until the context ends. As long as there is no DNS
// server nothing is: pods ask those of other nodes then, which tell other agents.
func (d *domains) Run(ctx context.Context) error {
	for {
		snapshot, changed := d.feed.Latest()
		next := d.expire(snapshot, time.Now())
		d.tell(snapshot)
		d.save()
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = time.After(max(time.Until(next), expiryPause))
		}
		if !d.wait(ctx, snapshot, changed, timer) {
			return nil
		}
	}
}

// wait returns when there may be something to do, and false when the context ends.
func (d *domains) wait(ctx context.Context, snapshot *model.Snapshot, changed <-chan struct{}, timer <-chan time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer:
			return true
		case <-d.wake:
			return true
		case <-changed:
			var latest *model.Snapshot
			if latest, changed = d.feed.Latest(); latest.ClusterPolicies != snapshot.ClusterPolicies || latest.PoliciesKnown != snapshot.PoliciesKnown || latest.NameServers != snapshot.NameServers {
				return true
			}
		}
	}
}

// expire takes out what is over, and returns when the next is; zero: there is
// nothing.
func (d *domains) expire(s *model.Snapshot, now time.Time) (next time.Time) {
	served, _ := d.served()
	d.mu.Lock()
	defer d.mu.Unlock()
	var changed []netip.Addr
	if wanted := d.follow(s); wanted != nil {
		for addr, resolved := range s.Resolved.All() {
			if gone(d.ends, addr, resolved.Names) || gone(d.lapsed, addr, resolved.Lapsed) {
				changed = append(changed, addr) // of a pattern that is gone
			}
		}
	}
	later := func(ends time.Time) {
		if next.IsZero() || ends.Before(next) {
			next = ends
		}
	}
	for key, ends := range d.lapsed {
		if ends.After(now) {
			later(ends)
			continue
		}
		delete(d.lapsed, key)
		changed = append(changed, key.addr)
		d.made++
	}
	for key, ends := range d.ends {
		if ends.After(now) {
			later(ends)
			continue
		}
		d.made++
		if !served {
			d.ends[key] = now.Add(model.ResolutionGrace)
			later(d.ends[key])
			continue
		}
		changed = append(changed, key.addr)
		d.lapse(key, s, now)
	}
	d.publish(changed)
	return next
}

// gone tells whether one of some names that led to an address is not known any more.
func gone(from map[resolvedKey]time.Time, addr netip.Addr, names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { _, ok := from[resolvedKey{name, addr}]; return !ok })
}

// lapse lets a name not lead to an address any more. Where connections are ended that
// policies forbid, those that were made before are not. mu is held.
func (d *domains) lapse(key resolvedKey, s *model.Snapshot, now time.Time) {
	delete(d.ends, key)
	for pattern := range d.wanted.Matches(key.name) {
		d.counts[pattern]--
	}
	if s.Network != nil && s.Network.Policy.CutEstablished && len(d.lapsed) < maxLapsed {
		d.lapsed[key] = now.Add(lapsedTime)
	}
}

// tell says which patterns have too many addresses.
func (d *domains) tell(s *model.Snapshot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for pattern := range d.full {
		if d.counts[pattern] < maxResolved/2 {
			delete(d.full, pattern)
		}
	}
	var problems []model.Problem
	does, old := d.served()
	for _, policy := range s.ClusterPolicies.All() {
		for i := range policy.Rules[model.Egress] {
			for _, peer := range policy.Rules[model.Egress][i].Peers {
				if peer.Domain != "" && old && !does {
					problems = append(problems, model.Problem{
						Kind: "ClusterNetworkPolicy", Name: policy.Name, Field: fmt.Sprintf("spec.egress[%d].to", i), Reason: "NameServerOld",
						Message: fmt.Sprintf("the DNS server of this node is of an older release, which does not say what %s leads to: this allows nothing new here", peer.Domain),
						Remedy:  "kubectl apply --server-side -f deploy/dns.yaml, of the release of the agent",
					})
				}
				if d.full[peer.Domain] {
					problems = append(problems, model.Problem{
						Kind: "ClusterNetworkPolicy", Name: policy.Name, Field: fmt.Sprintf("spec.egress[%d].to", i), Reason: "TooManyAddresses",
						Message: fmt.Sprintf("%s leads to more than %d addresses at a time on this node, and further ones are not allowed", peer.Domain, maxResolved),
						Remedy:  "name longer domains, or name addresses under networks",
					})
				}
			}
		}
	}
	slices.SortFunc(problems, model.Problem.Compare)
	d.notices.set("domains", slices.Compact(problems)...)
}
