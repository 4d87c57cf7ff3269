package dns

import (
	"fmt"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

func (c *computation) findProblems() (all []model.Problem) {
	for _, problem := range c.wrong.All() {
		all = append(all, problem)
	}
	slices.SortFunc(all, model.Problem.Compare)
	return all
}

func badZone(zone string) model.Problem {
	return model.Problem{
		Kind: "Network", Name: "default", Field: "spec.dns.zone", Reason: "Invalid",
		Message: fmt.Sprintf("%q is not a domain that names could be below, such as cluster.local", zone),
		Remedy:  "correct it with kubectl edit networks.fairlead.io default",
	}
}

func badExternal(key model.ServiceKey, err error) model.Problem {
	return model.Problem{
		Kind: "Service", Namespace: key.Namespace, Name: key.Name, Field: "spec.externalName", Reason: "Invalid",
		Message: "the Service's name leads nowhere: " + err.Error(),
		Remedy:  "give it the name of a host; for an address, make a headless Service and an EndpointSlice",
	}
}

func tooLong(key model.ServiceKey, zone Name) model.Problem {
	return model.Problem{
		Kind: "Service", Namespace: key.Namespace, Name: key.Name, Field: "metadata.name", Reason: "NameTooLong",
		Message: fmt.Sprintf("with its namespace and %s the name has more than %d bytes, so that nobody can ask for it", zone, maxName),
		Remedy:  "give the Service or its namespace a shorter name",
	}
}

// Problems are those of how names are served, as far as the cluster knows: a
// Service of DNS that is not there though a server is, and upstreams that would
// only ask it again. They are the same on all nodes.
func Problems(snapshot *model.Snapshot) (all []model.Problem) {
	// A snapshot of a file may be of nodes and pods alone; a cluster always has the
	// Service of its API server.
	if snapshot.Network == nil || !snapshot.NamesKnown || snapshot.Services.Len() == 0 {
		return nil
	}
	options := &snapshot.Network.DNS
	wrong := func(field, reason, message, remedy string) {
		all = append(all, model.Problem{
			Kind: "Network", Name: "default", Field: field, Reason: reason, Message: message, Remedy: remedy,
		})
	}
	service, ok := snapshot.Services.Get(options.Service)
	if !ok {
		wrong("spec.dns.service", "NoService", fmt.Sprintf("there is no Service %s with an address, so pods' queries do not come to Fairlead", options.Service),
			"name the Service whose address the kubelets have as clusterDNS")
		return all
	}
	check := func(field string, upstreams []model.Upstream) {
		for _, upstream := range upstreams {
			if slices.Contains(service.ClusterIPs, upstream.At.Addr()) {
				wrong(field, "Loop", fmt.Sprintf("%s is the address of %s itself, which would ask itself for ever", upstream, options.Service),
					"give the address of a server outside of the cluster")
			}
		}
	}
	check("spec.dns.upstreams", options.Upstreams)
	for _, stub := range options.Stubs {
		check(fmt.Sprintf("spec.dns.stubDomains[%s].upstreams", stub.Zone), stub.Upstreams)
	}
	return all
}
