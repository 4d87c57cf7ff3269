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
