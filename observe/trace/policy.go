package trace

import (
	"fmt"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// Denied is what policies say of a connection that they forbid.
type Denied struct {
	Pod       string `json:"pod"`       // whose policies do, NAMESPACE/NAME
	Direction string `json:"direction"` // ingress or egress
	By        string `json:"by"`        // the rule, for people
	Next      string `json:"next"`      // what shows it
}

// expectDenied asks policies about the connection; nil if they allow it, or if
// no protocol says what to ask.
func expectDenied(snapshot *model.Snapshot, planned *plan.Node, packet plan.Packet) *Denied {
	if packet.Protocol == 0 {
		return nil
	}
	denial := plan.Verdict(planned, packet).Denied
	if !denial.Pod.IsValid() {
		return nil
	}
	denied := &Denied{Pod: denial.Pod.String(), Direction: denial.Direction.String(), By: denial.By.String()}
	if of := attachment(snapshot, denial.Pod); of != nil {
		denied.Pod = of.Pod.String()
	}
	switch by := denial.By; {
	case by.Rule == policy.Unknown:
		denied.Next = "see why the API server does not know the pod: kubectl get pods -A; fairlead status"
	default:
		denied.Next = fmt.Sprintf("see what would allow it: fairlead policy explain --from %s --to %s --port %d/%s",
			packet.Source, packet.Destination, packet.Port, strings.ToLower(packet.Protocol.String()))
	}
	return denied
}

// allowed tells whether policies let the connection through, and shows it if
// not.
func (v *visit) allowed() bool {
	if v.plan == nil || v.plan.Denied == nil {
		return true
	}
	d := v.plan.Denied
	v.line(Line{Where: v.place.Name, Way: v.q.To.String(), Findings: []Finding{{
		Effect: Breaks, What: fmt.Sprintf("policies of %s (%s) drop the packet: %s", d.Pod, d.Direction, d.By), Next: d.Next,
	}}})
	return false
}
