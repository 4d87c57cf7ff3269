package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/fairlead-net/fairlead/model"
)

// draft is one Ingress, understood by itself: what others say of its hosts is not
// known yet. It is immutable.
type draft struct {
	ingress  *model.HTTPIngress
	settings *settings
	like     *like // others have the same settings; nil: it alone
	policy   *Policy
	paths    []claim
	hosts    map[string]role // all that it has a say in
	asks     bool            // for certificates, and there is who gives them
	problems []model.Problem
}

// role is what an Ingress is to a host.
type role uint8

const (
	ruling role = iota // it has a rule, or the default backend
	alias              // it gives the host the routes of another
	guest              // its canaries are at routes of others
	sender             // it sends requests to its other name, with or without www
)

// claim is one path of a host.
type claim struct {
	host, field string
	path        model.IngressPath
}

// newDraft understands an Ingress. same, if not nil, is what annotations like its own
// say.
func newDraft(ingress *model.HTTPIngress, options *model.IngressOptions, same *like) *draft {
	d := &draft{ingress: ingress, settings: plain(), like: same, hosts: map[string]role{}}
	switch {
	case same != nil:
		d.settings = same.settings
	case len(ingress.Annotations) > 0:
		d.settings = defaults()
		closed := d.readAnnotations()
		d.settings.finish(d)
		if closed != "" {
			d.settings.Closed = closed
		}
	}
	d.policy = &d.settings.Policy
	for i := range ingress.Rules {
		d.readRule(i)
	}
	if ingress.Default != nil && len(ingress.Rules) == 0 {
		d.hosts[""] = d.rules()
	}
	if ingress.Default != nil && ingress.Default.Resource != "" {
		d.wrong("spec.defaultBackend", "NotAService", ingress.Default.Resource+" is not a Service, and requests are led to nothing else", "name a Service")
	}
	d.addNames()
	d.readAsk(options)
	return d
}

// plain are the settings of all Ingresses without annotations.
var plain = sync.OnceValue(func() *settings {
	s := defaults()
	s.finish(&draft{ingress: &model.HTTPIngress{}})
	return s
})

// rules is its role for hosts that it names.
func (d *draft) rules() role {
	if d.settings.canary.on {
		return guest
	}
	return ruling
}

// readAnnotations says what keeps the routes closed, if anything does.
func (d *draft) readAnnotations() (closed string) {
	for _, a := range d.ingress.Annotations {
		is, why, guard := d.settings.verdict(a)
		switch is {
		case Refused:
			remedy := "correct or remove the annotation"
			if guard {
				closed = cmp.Or(closed, fmt.Sprintf("annotation %s: %s", a.Key, why))
				remedy += "; until then all requests to the Ingress are answered with 503, since it protects"
			}
			d.annotated(a.Key, "NotHonoured", why, remedy)
		case Unknown:
			d.annotated(a.Key, "UnknownAnnotation", why, "remove the annotation")
		}
	}
	return closed
}

func (d *draft) readRule(i int) {
	rule := &d.ingress.Rules[i]
	if rule.Host != "" {
		if err := checkHost(rule.Host); err != nil {
			d.wrong(fmt.Sprintf("spec.rules[%d].host", i), "Invalid", err.Error(), "correct the name")
			return
		}
	}
	d.hosts[rule.Host] = d.rules()
	for j, path := range rule.Paths {
		field := fmt.Sprintf("spec.rules[%d].http.paths[%d]", i, j)
		if path.Path == "" {
			path.Path = "/"
		}
		if err := checkPath(path); err != nil {
			d.wrong(field+".path", "Invalid", err.Error(), "correct the path; requests to it go where they would without it")
			continue
		}
		if path.Backend.Resource != "" {
			d.wrong(field+".backend", "NotAService", path.Backend.Resource+" is not a Service, and requests are led to nothing else", "name a Service")
			continue
		}
		d.paths = append(d.paths, claim{rule.Host, field, path})
	}
}

// checkPath refuses what a path of its type cannot be (as strict-validate-path-type
// of ingress-nginx does): an expression that is none would match nothing, and be
// believed to.
func checkPath(path model.IngressPath) error {
	if path.Path[0] != '/' {
		return fmt.Errorf("%q does not begin with /", clip(path.Path))
	}
	if strings.IndexFunc(path.Path, func(r rune) bool { return r <= ' ' || r == 0x7f }) >= 0 {
		return fmt.Errorf("%q has a space or a control character", clip(path.Path))
	}
	if path.Type == model.PathImplementation {
		return nil
	}
	if at := strings.IndexAny(path.Path, `*?()[]{}^$|\#`); at >= 0 {
		return fmt.Errorf("%q has a %q, and pathType %s is no expression: for one, use ImplementationSpecific", clip(path.Path), path.Path[at], path.Type)
	}
	return nil
}

// addNames finds the hosts that annotations add. A canary adds none.
func (d *draft) addNames() {
	if d.settings.canary.on {
		return
	}
	for _, name := range d.settings.aliases {
		if _, ok := d.hosts[name]; !ok {
			d.hosts[name] = alias
		}
	}
	if !d.settings.www {
		return
	}
	for _, rule := range d.ingress.Rules {
		if other := otherName(rule.Host); other != "" {
			if _, ok := d.hosts[other]; !ok {
				d.hosts[other] = sender
			}
		}
	}
}

// otherName is the name of a host with www, or without it; empty: there is none.
func otherName(host string) string {
	if host == "" || strings.HasPrefix(host, "*") {
		return ""
	}
	if bare, ok := strings.CutPrefix(host, "www."); ok {
		return bare
	}
	return "www." + host
}

func (d *draft) wrong(field, reason, message, remedy string) {
	d.problems = append(d.problems, problemOf(d.ingress, field, reason, message, remedy))
}

func (d *draft) annotated(key, reason, message, remedy string) {
	d.wrong("metadata.annotations["+key+"]", reason, message, remedy)
}

func problemOf(ingress *model.HTTPIngress, field, reason, message, remedy string) model.Problem {
	return model.Problem{
		Kind: "Ingress", Namespace: ingress.Namespace, Name: ingress.Name,
		Field: field, Reason: reason, Message: message, Remedy: remedy,
	}
}

// older orders Ingresses by age, the oldest first: of two that claim a path, it
// has it.
func older(a, b *draft) int {
	return cmp.Or(
		cmp.Compare(a.ingress.Created, b.ingress.Created),
		cmp.Compare(a.ingress.Namespace, b.ingress.Namespace), cmp.Compare(a.ingress.Name, b.ingress.Name),
	)
}

// services are all that it leads to.
func (d *draft) services() (all []model.ServiceKey) {
	add := func(name string) {
		if key := serviceKey(d.ingress.Namespace, name); name != "" && !slices.Contains(all, key) {
			all = append(all, key)
		}
	}
	for i := range d.paths {
		add(d.paths[i].path.Backend.Service)
	}
	if d.ingress.Default != nil {
		add(d.ingress.Default.Service)
	}
	add(d.settings.errorService)
	return all
}

func (d *draft) backend(b model.IngressBackend) Backend {
	return Backend{Service: serviceKey(d.ingress.Namespace, b.Service), Port: b.Port, Name: b.PortName}
}
