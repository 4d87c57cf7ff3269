package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/service"
)

// Exit codes of service list and service show. Success is 0.
const (
	exitUnserved      exitCode = 1
	exitServedUnknown exitCode = 2
)

// States of services, beside that of unknown.
const (
	stateServed   = "served"
	stateProblems = "problems"
	stateUnknown  = "unknown"
)

// serviceTime is for the API server and the node together.
const serviceTime = 30 * time.Second

func serviceCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "service",
		Short: "Show the Services that Fairlead serves, and where each leads",
		Args:  cobra.NoArgs,
	}
	command.AddCommand(serviceListCommand(), serviceShowCommand())
	return command
}

// serviceOutput is one Service of service list. It only grows.
type serviceOutput struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Type      string `json:"type"`
	// ClusterIPs and External are the addresses that it is reached at everywhere;
	// node ports are in Ports.
	ClusterIPs []netip.Addr `json:"clusterIPs,omitempty"`
	External   []netip.Addr `json:"externalAddresses,omitempty"` // of load balancers and externalIPs
	Ports      []portOutput `json:"ports,omitempty"`
	// Endpoints are counted once, whatever their ports and families; those that
	// are usable take new connections, or would if no other did.
	Endpoints int      `json:"endpoints"`
	Usable    int      `json:"usableEndpoints"`
	Affinity  uint32   `json:"affinitySeconds,omitempty"`
	Policies  []string `json:"policies,omitempty"` // such as externalTrafficPolicy: Local
	Created   string   `json:"created,omitempty"`  // RFC 3339
	Remarks   []string `json:"remarks,omitempty"`  // what is no fault, but good to know
	Unserved  string   `json:"unserved,omitempty"` // why it has nothing to serve
}

type portOutput struct {
	Name     string         `json:"name,omitempty"`
	Protocol model.Protocol `json:"protocol"`
	Port     uint16         `json:"port"`
	NodePort uint16         `json:"nodePort,omitempty"`
}

func (p portOutput) String() string {
	text := fmt.Sprintf("%d/%s", p.Port, p.Protocol)
	if p.NodePort != 0 {
		text = fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol)
	}
	return text
}

// describe says what a Service is.
func describe(object *kube.ServiceObject, endpoints map[model.ServiceKey][]*model.EndpointSlice) serviceOutput {
	output := serviceOutput{
		Namespace: object.Namespace, Name: object.Name, Type: object.Type, Unserved: object.Unserved,
		Created: object.Created.UTC().Format(time.RFC3339),
	}
	s := object.Served
	if s == nil {
		return output
	}
	output.ClusterIPs, output.External = s.ClusterIPs, slices.Concat(s.LoadBalancerIPs, s.ExternalIPs)
	output.Affinity = s.Affinity
	for _, p := range s.Ports {
		output.Ports = append(output.Ports, portOutput{p.Name, p.Protocol, p.Port, p.NodePort})
	}
	output.Endpoints, output.Usable = countEndpoints(s, endpoints[s.ServiceKey])
	if s.InternalLocal {
		output.Policies = append(output.Policies, "internalTrafficPolicy: Local")
	}
	if s.ExternalLocal {
		output.Policies = append(output.Policies, "externalTrafficPolicy: Local")
	}
	switch {
	case output.Endpoints == 0:
		output.Remarks = append(output.Remarks, "connections are refused: it has no endpoints")
	case output.Usable == 0:
		output.Remarks = append(output.Remarks, "connections are refused: no endpoint is ready")
	}
	if object.Awaits {
		output.Remarks = append(output.Remarks, "it waits for the address of a load balancer")
	}
	return output
}

// countEndpoints counts those of the family that has most.
func countEndpoints(of *model.Service, in []*model.EndpointSlice) (all, usable int) {
	for _, family := range model.Families {
		if !of.ClusterIP(family).IsValid() {
			continue
		}
		found := map[netip.Addr]bool{}
		for _, slice := range in {
			if slice.Family != family {
				continue
			}
			for i := range slice.Endpoints {
				e := &slice.Endpoints[i]
				found[e.Address] = found[e.Address] || e.Ready || e.Serving && e.Terminating
			}
		}
		count := 0
		for _, ok := range found {
			if ok {
				count++
			}
		}
		all, usable = max(all, len(found)), max(usable, count)
	}
	return all, usable
}

// bySlices are the slices of each Service.
func bySlices(snapshot *model.Snapshot) map[model.ServiceKey][]*model.EndpointSlice {
	all := map[model.ServiceKey][]*model.EndpointSlice{}
	for _, slice := range snapshot.Slices.All() {
		key := model.ServiceKey{Namespace: slice.Namespace, Name: slice.Service}
		all[key] = append(all[key], slice)
	}
	return all
}

// foundServices are what commands about Services look at.
type foundServices struct {
	client   *kube.Client
	overview *kube.Overview
	serving  *kube.Serving
}

func findServices(ctx context.Context, options kube.Options, of model.ServiceKey) (*foundServices, error) {
	client, err := kube.Connect(options)
	if err != nil {
		return nil, err
	}
	overview, err := client.Overview(ctx)
	if err != nil {
		return nil, err
	}
	serving, err := client.Serving(ctx, of)
	if err != nil {
		return nil, err
	}
	serving.Snapshot.Network = overview.Config
	for i := range overview.Nodes {
		node := overview.Nodes[i].Node
		serving.Snapshot.Nodes = serving.Snapshot.Nodes.With(node.Name, node)
	}
	return &foundServices{client, overview, serving}, nil
}

// problems are those of the Services that were found and of their slices: what
// the agents report, and what shows without them.
func (c *foundServices) problems() []problemOutput {
	problems := slices.Clone(c.serving.Problems)
	if len(c.overview.Nodes) > 0 {
		_, found := service.Compute(nil, c.serving.Snapshot, c.overview.Nodes[0].Node.Name)
		problems = append(problems, found...)
	}
	for _, node := range c.overview.Nodes {
		if node.Report == nil {
			continue
		}
		for _, problem := range node.Report.Status.Problems {
			problems = append(problems, model.Problem(problem))
		}
	}
	problems = slices.DeleteFunc(problems, func(p model.Problem) bool { return !c.concerns(p) })
	slices.SortFunc(problems, model.Problem.Compare)
	return problemOutputs(slices.Compact(problems))
}

func (c *foundServices) concerns(p model.Problem) bool {
	switch p.Kind {
	case "Service":
		return slices.ContainsFunc(c.serving.Services, func(s kube.ServiceObject) bool { return s.Namespace == p.Namespace && s.Name == p.Name })
	case "EndpointSlice":
		_, ok := c.serving.Snapshot.Slices.Get(model.SliceKey{Namespace: p.Namespace, Name: p.Name})
		return ok
	}
	return false
}

// closest are the names that somebody may have meant, the likeliest first.
func closest(name string, names []string) (similar []string) {
	const most = 3
	distance := func(other string) int {
		if strings.Contains(other, name) || strings.Contains(name, other) {
			return 1
		}
		return edits(name, other)
	}
	for _, other := range names {
		if distance(other) <= 1+len(name)/4 {
			similar = append(similar, other)
		}
	}
	slices.SortFunc(similar, func(a, b string) int { return cmp.Or(distance(a)-distance(b), cmp.Compare(a, b)) })
	return similar[:min(len(similar), most)]
}

// edits is how many characters one has to add, take away or change to make one
// word of another (Levenshtein).
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// unknownService says that there is none, and which may be meant.
func (c *foundServices) unknownService(ctx context.Context, key model.ServiceKey) error {
	all, err := c.client.Serving(ctx, model.ServiceKey{})
	if err != nil {
		return fmt.Errorf("there is no Service %s", key)
	}
	return unknownAmong(key, all.Services)
}

func unknownAmong(key model.ServiceKey, all []kube.ServiceObject) error {
	var names, likely []string
	for _, s := range all {
		if s.Name == key.Name {
			likely = append(likely, s.ServiceKey.String())
		}
		if s.Namespace == key.Namespace {
			names = append(names, s.Name)
		}
	}
	for _, name := range closest(key.Name, names) {
		likely = append(likely, key.Namespace+"/"+name)
	}
	text := fmt.Sprintf("there is no Service %s", key)
	if len(likely) > 0 {
		text += "; did you mean " + strings.Join(likely, " or ") + "?"
	}
	return errors.New(text)
}
