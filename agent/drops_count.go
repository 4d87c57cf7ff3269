package agent

import (
	"maps"
	"sync"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/metric"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// tally adds up what the kernel counts for rules, whose counters begin anew now
// and then. A policy without a rule on this node is forgotten: if it comes back, it
// begins at zero, which Prometheus takes for the reset of a counter. The zero value
// is ready, and safe for concurrent use.
type tally struct {
	mu       sync.Mutex
	last     map[deniedRule]uint64
	policies map[deniedBy]uint64 // with series of their own
	others   map[string]uint64   // of the rest, by direction; also of those that have gone
	packets  uint64              // of all
	unlogged uint64
}

type deniedRule struct {
	direction model.Direction
	rule      policy.Rule
}

// deniedBy are the values of labels.
type deniedBy struct{ direction, policy string }

const (
	// mostPolicies have series of their own: the first that deny something, and then
	// those that do when one of them has gone.
	mostPolicies  = 100
	otherPolicies = "others"
)

// add takes what the kernel counts now. Logged is asked afterwards: what is
// counted is logged next.
func (t *tally) add(denials []dataplane.Denial, logged func() uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.policies == nil {
		t.policies, t.others = map[deniedBy]uint64{}, map[string]uint64{}
	}
	t.forget(denials)
	now := map[deniedRule]uint64{}
	for _, denial := range denials {
		key := deniedRule{denial.Direction, denial.Rule}
		now[key] = denial.Packets
		more := denial.Packets
		if last := t.last[key]; last <= more {
			more -= last
		}
		if more == 0 {
			continue
		}
		t.packets += more
		by := deniedBy{denial.Direction.String(), denial.Rule.Policy.String()}
		if _, known := t.policies[by]; !known && len(t.policies) >= mostPolicies {
			t.others[by.direction] += more
			continue
		}
		t.policies[by] += more
	}
	t.last = now
	if logged := logged(); t.packets > logged {
		t.unlogged = max(t.unlogged, t.packets-logged)
	}
}

// forget drops the policies that have no rule on this node any more, so that others
// get their series. Rules that have denied nothing are among the denials.
func (t *tally) forget(denials []dataplane.Denial) {
	present := map[deniedBy]bool{}
	for i := range denials {
		present[deniedBy{denials[i].Direction.String(), denials[i].Rule.Policy.String()}] = true
	}
	maps.DeleteFunc(t.policies, func(by deniedBy, _ uint64) bool { return !present[by] })
}

// suppressed is how many packets were denied and not logged.
func (t *tally) suppressed() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.unlogged
}

func dropReadings() []metric.Reading {
	return []metric.Reading{
		{Name: "fairlead_policy_denied_packets_total", Help: "Packets that policies denied, by the policy and the direction of the pod that it is for.", Labels: []string{"direction", "policy"}, Counter: true},
		{Name: "fairlead_drops_read_total", Help: "Packets that policies denied and that were read from the kernel's log.", Counter: true},
		{Name: "fairlead_drops_suppressed_total", Help: "Packets that policies denied and that the kernel did not log, since they were many.", Counter: true},
		{Name: "fairlead_drops_lost_total", Help: "Packets that policies denied and that were logged but not read, or not written to the file.", Labels: []string{"at"}, Counter: true},
	}
}

func (d *drops) readMetrics(emit metric.Emit) error {
	err := d.count()
	emit("fairlead_drops_read_total", float64(d.read.Load()))
	emit("fairlead_drops_suppressed_total", float64(d.denied.suppressed()))
	emit("fairlead_drops_lost_total", float64(d.lost.Load()), "kernel")
	emit("fairlead_drops_lost_total", float64(d.unwritten.Load()), "file")
	d.denied.mu.Lock()
	defer d.denied.mu.Unlock()
	for by, packets := range d.denied.policies {
		emit("fairlead_policy_denied_packets_total", float64(packets), by.direction, by.policy)
	}
	for direction, packets := range d.denied.others {
		emit("fairlead_policy_denied_packets_total", float64(packets), direction, otherPolicies)
	}
	return err
}
