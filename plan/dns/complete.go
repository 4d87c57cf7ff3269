package dns

import (
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// ndots is what kubelets give to pods: a name with fewer dots is looked for in all
// domains of the search path before it is asked for as it is, and one with as many
// after that.
const ndots = 5

// Complete returns what a client asks for, one after the other until it finds
// something, if the name that it asks for now is the first of a search: a name
// outside of its namespace, below that. The query itself is the first of them; in
// the cluster follow its other domains, then those of the node's own search path,
// and the name as the user wrote it. nil: this is no such query, or there may be
// more to it than the search of a path, and it is answered as it is.
//
// The search path is the one that kubelets write for pods whose dnsPolicy is
// ClusterFirst: <namespace>.svc.<zone> svc.<zone> <zone>, and the node's.
//
// A name of one label is nobody's but the cluster's, as long as it has dots behind
// it: a Service that is not there yet. So is one below a Service of the namespace:
// a pod that is not ready yet. Both are denied rather than looked for elsewhere,
// where a wildcard may answer.
func (z *Zone) Complete(query Name, namespace string, search []Name) []Name {
	svc := z.Origin.child("svc")
	own := svc.child(namespace)
	name, ok := strings.CutSuffix(string(query), string(own))
	if own == "" || !ok || !startsAt(query, len(name)) || z.Lookup(query) != nil {
		return nil
	}
	base := Name(name + "\x00")
	labels := base.labels()
	if labels < 2 || z.has(model.ServiceKey{Namespace: namespace, Name: base.last()}) {
		return nil
	}
	if z.Within(base) { // written in full: nobody else has such names
		if labels > ndots {
			return nil // and asked for in full before
		}
		return []Name{query, base}
	}
	steps := []Name{query}
	for _, domain := range append([]Name{svc, z.Origin}, search...) {
		step := Name(name + string(domain))
		if len(step) <= maxName && domain != own && len(domain) > 1 && !slices.Contains(steps, step) {
			steps = append(steps, step)
		}
	}
	if labels <= ndots {
		steps = append(steps, base)
	}
	return steps
}

// startsAt tells whether a label of a name begins at a byte of it.
func startsAt(name Name, at int) bool {
	for whole := len(name); len(name) > 1 && whole-len(name) < at; {
		name = name.parent()
		if whole-len(name) == at {
			return true
		}
	}
	return false
}

// last is the label of a name just below the root.
func (n Name) last() string {
	for len(n.parent()) > 1 {
		n = n.parent()
	}
	return n.label()
}
