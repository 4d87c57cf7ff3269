package gateway

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// Controllers of IngressClasses.
const (
	Controller      = "fairlead.io/ingress" // ours
	NginxController = "k8s.io/ingress-nginx"
)

// Names of classes that are ours without an IngressClass.
const (
	Class      = "fairlead"
	NginxClass = "nginx"
)

// claims are the Ingresses that have a say in a host, the oldest first.
type claims struct{ drafts []*draft }

// users are the Ingresses that lead to a Service.
type users struct{ keys []model.IngressKey }

// wrong is what is wrong with the backends of an Ingress.
type wrong struct{ problems []model.Problem }

// computation makes the next table.
type computation struct {
	*Table
	snapshot *model.Snapshot
	hosts    map[string]struct{}           // to be made anew
	backends map[model.IngressKey]struct{} // to be looked at
}

// Compute plans what becomes of requests, and says what is wrong with Ingresses.
// prev is the last table or nil: what a change costs follows the hosts that it
// touches, and if it touches none, prev is returned.
func Compute(prev *Table, snapshot *model.Snapshot) (*Table, []model.Problem) {
	if prev == nil {
		prev = &Table{}
	}
	options := prev.options
	if snapshot.Network != nil {
		options = snapshot.Network.Ingress
	}
	if prev.options.Equal(&options) && prev.ingresses == snapshot.Ingresses && prev.classes == snapshot.IngressClasses &&
		prev.services == snapshot.Services && prev.names == snapshot.Names {
		return prev, prev.problems
	}
	next := *prev
	c := &computation{Table: &next, snapshot: snapshot, hosts: map[string]struct{}{}, backends: map[model.IngressKey]struct{}{}}
	c.options = options
	c.findIngresses(prev)
	c.findServices(prev)
	c.ingresses, c.classes, c.services, c.names = snapshot.Ingresses, snapshot.IngressClasses, snapshot.Services, snapshot.Names
	c.redoHosts()
	for key := range c.backends {
		c.redoBackends(key)
	}
	if len(c.hosts)+len(c.backends) > 0 {
		c.collect()
	}
	return c.Table, c.problems
}

// findIngresses understands those that are new.
func (c *computation) findIngresses(prev *Table) {
	if !prev.options.Equal(&c.options) || prev.classes != c.snapshot.IngressClasses {
		turned := (prev.options.ACME.Server == "") != (c.options.ACME.Server == "")
		for _, ingress := range c.snapshot.Ingresses.All() {
			d, had := c.drafts.Get(ingress.IngressKey)
			if is := c.serves(ingress); is != had || had && turned && (d.settings.ask || d.settings.askAny) {
				c.replace(ingress.IngressKey, ingress)
			}
		}
	}
	for change := range model.Diff(prev.ingresses, c.snapshot.Ingresses) {
		c.replace(change.Key, change.New)
	}
}

// serves tells whether an Ingress is of a class that is served here.
func (c *computation) serves(ingress *model.HTTPIngress) bool {
	ours := func(class *model.IngressClass) bool {
		return class.Controller == Controller || class.Controller == NginxController && c.options.NginxCompatible
	}
	if ingress.Class != "" {
		if class, ok := c.snapshot.IngressClasses.Get(ingress.Class); ok {
			return ours(class)
		}
		return ingress.Class == Class || ingress.Class == NginxClass && c.options.NginxCompatible
	}
	for _, class := range c.snapshot.IngressClasses.All() {
		if class.Default && ours(class) {
			return true
		}
	}
	return false
}

// replace puts the draft of an Ingress in the place of the last; nil: it is gone.
func (c *computation) replace(key model.IngressKey, ingress *model.HTTPIngress) {
	if old, ok := c.drafts.Get(key); ok {
		c.drafts = c.drafts.Without(key)
		for host := range old.hosts {
			c.claim(host, old, nil)
		}
		for _, service := range old.services() {
			c.use(service, key, false)
		}
		c.name(old, -1)
		c.unshare(old.like)
		c.backends[key] = struct{}{}
	}
	if ingress == nil || !c.serves(ingress) {
		return
	}
	d := c.newDraft(ingress)
	c.drafts = c.drafts.With(key, d)
	for host := range d.hosts {
		c.claim(host, nil, d)
	}
	for _, service := range d.services() {
		c.use(service, key, true)
	}
	c.name(d, 1)
	c.backends[key] = struct{}{}
}

// name counts the Secrets that an Ingress names.
func (c *computation) name(d *draft, by int) {
	for _, secret := range d.secrets() {
		count, _ := c.secrets.Get(secret)
		if count += by; count == 0 {
			c.secrets = c.secrets.Without(secret)
		} else {
			c.secrets = c.secrets.With(secret, count)
		}
	}
}

// claim takes one draft out of those of a host, and puts another in.
func (c *computation) claim(host string, old, new *draft) {
	c.hosts[host] = struct{}{}
	var drafts []*draft
	if had, ok := c.claims.Get(host); ok {
		drafts = slices.DeleteFunc(slices.Clone(had.drafts), func(d *draft) bool { return d == old })
	}
	if new != nil {
		at, _ := slices.BinarySearchFunc(drafts, new, older)
		drafts = slices.Insert(drafts, at, new)
	}
	if len(drafts) == 0 {
		c.claims = c.claims.Without(host)
		return
	}
	c.claims = c.claims.With(host, &claims{drafts})
}

func (c *computation) use(service model.ServiceKey, by model.IngressKey, uses bool) {
	var keys []model.IngressKey
	if had, ok := c.users.Get(service); ok {
		keys = slices.DeleteFunc(slices.Clone(had.keys), func(key model.IngressKey) bool { return key == by })
	}
	if uses {
		keys = append(keys, by)
	}
	if len(keys) == 0 {
		c.users = c.users.Without(service)
		return
	}
	c.users = c.users.With(service, &users{keys})
}

// findServices finds the Ingresses whose backends have changed.
func (c *computation) findServices(prev *Table) {
	touched := func(key model.ServiceKey) {
		if using, ok := c.users.Get(key); ok {
			for _, by := range using.keys {
				c.backends[by] = struct{}{}
			}
		}
	}
	for change := range model.Diff(prev.services, c.snapshot.Services) {
		touched(change.Key)
	}
	for change := range model.Diff(prev.names, c.snapshot.Names) {
		touched(change.Key)
	}
}

// redoHosts makes those that changed, and then the other names of them.
func (c *computation) redoHosts() {
	others := map[string]struct{}{}
	for name := range c.hosts {
		claims, ok := c.claims.Get(name)
		if !ok {
			c.Hosts = c.Hosts.Without(name)
			continue
		}
		c.Hosts = c.Hosts.With(name, newHost(name, claims.drafts))
		for _, d := range claims.drafts {
			for other, role := range d.hosts {
				if role == alias || role == sender {
					others[other] = struct{}{}
				}
			}
		}
	}
	for name := range others {
		c.redoOther(name)
	}
}

// redoOther makes a host of which no rule says anything: it has the routes of
// another, or leads there.
func (c *computation) redoOther(name string) {
	claims, ok := c.claims.Get(name)
	if !ok || slices.ContainsFunc(claims.drafts, func(d *draft) bool { return d.hosts[name] == ruling }) {
		return // it has rules of its own, which come first
	}
	at := slices.IndexFunc(claims.drafts, func(d *draft) bool { return d.hosts[name] != guest })
	if at < 0 {
		return
	}
	d, before := claims.drafts[at], []model.Problem(nil)
	if old, ok := c.Hosts.Get(name); ok {
		before = old.problems
	}
	for _, rule := range d.ingress.Rules {
		host, ok := c.Hosts.Get(rule.Host)
		if !ok || host.absent || d.hosts[name] == sender && otherName(rule.Host) != name {
			continue
		}
		made := *host
		if made.Name, made.problems = name, before; d.hosts[name] == sender {
			made = Host{Name: name, problems: before, Redirect: rule.Host, TLS: host.TLS, Certificates: host.Certificates, Asked: host.Asked, asks: host.asks, index: newIndex(nil)}
		}
		made.orderAlso(d)
		c.Hosts = c.Hosts.With(name, &made)
		c.hosts[name] = struct{}{}
		return
	}
}

// redoBackends looks whether the Services of an Ingress are there.
func (c *computation) redoBackends(key model.IngressKey) {
	d, ok := c.drafts.Get(key)
	if !ok {
		c.wrong = c.wrong.Without(key)
		return
	}
	var problems []model.Problem
	look := func(field string, b Backend) {
		if message, remedy := c.missing(b); message != "" {
			problems = append(problems, problemOf(d.ingress, field, "NoBackend", message, remedy))
		}
	}
	for i := range d.paths {
		look(d.paths[i].field+".backend", d.backend(d.paths[i].path.Backend))
	}
	if b := d.ingress.Default; b != nil && b.Resource == "" {
		look("spec.defaultBackend", d.backend(*b))
	}
	if d.policy.ErrorBackend != nil {
		look("metadata.annotations["+prefix+"default-backend]", *d.policy.ErrorBackend)
	}
	if len(problems) == 0 {
		c.wrong = c.wrong.Without(key)
		return
	}
	c.wrong = c.wrong.With(key, &wrong{problems})
}

// missing says what a backend lacks; empty: nothing.
func (c *computation) missing(b Backend) (message, remedy string) {
	var ports []model.ServicePort
	if service, ok := c.snapshot.Services.Get(b.Service); ok {
		ports = service.Ports
	} else if name, ok := c.snapshot.Names.Get(b.Service); ok {
		if ports = name.Ports; len(name.ClusterIPs) == 0 {
			return "", "" // its ports are those of its endpoints
		}
	} else {
		return fmt.Sprintf("there is no Service %s, so requests are answered with 503", b.Service), "make it, or name another"
	}
	if b.Port == 0 && b.Name == "" || slices.ContainsFunc(ports, func(p model.ServicePort) bool {
		return p.Protocol == model.TCP && (b.Name == "" && p.Port == b.Port || b.Name != "" && p.Name == b.Name)
	}) {
		return "", ""
	}
	return fmt.Sprintf("Service %s has no port %s of TCP, so requests are answered with 503", b.Service, b.PortText()), "name one that it has"
}

// PortText is the port as the Ingress names it.
func (b *Backend) PortText() string {
	if b.Name != "" {
		return b.Name
	}
	return fmt.Sprint(b.Port)
}

func (b Backend) String() string { return b.Service.String() + ":" + b.PortText() }

// collect gathers what is wrong.
func (c *computation) collect() {
	c.problems = nil
	for _, d := range c.drafts.All() {
		c.problems = append(c.problems, d.problems...)
	}
	for _, host := range c.Hosts.All() {
		c.problems = append(c.problems, host.problems...)
	}
	for _, wrong := range c.wrong.All() {
		c.problems = append(c.problems, wrong.problems...)
	}
	slices.SortFunc(c.problems, func(a, b model.Problem) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), a.Compare(b))
	})
}

// Options are those that the table was made by.
func (t *Table) Options() *model.IngressOptions { return &t.options }

// Serves tells whether an Ingress is of a class that is served here.
func (t *Table) Serves(key model.IngressKey) bool {
	_, ok := t.drafts.Get(key)
	return ok
}
