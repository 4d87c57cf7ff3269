package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/servers/gateway/daemon"
)

// gatewaysOutput is what status -o json says of the gateways. It only grows.
type gatewaysOutput struct {
	Wanted   int             `json:"wanted"` // nodes where the DaemonSet has one; 0: there is no DaemonSet
	Pods     []gatewayOutput `json:"pods"`
	Silence  string          `json:"silence,omitempty"`  // why it is not known how many there are to be
	Problems map[string]int  `json:"problems,omitempty"` // of Ingresses and what they name, by reason
}

// gatewayOutput is one gateway.
type gatewayOutput struct {
	Node    string          `json:"node"`
	Pod     string          `json:"pod"`
	State   string          `json:"state"`             // ready, or why not
	Routes  string          `json:"routes"`            // current, old if they cannot be followed, or unknown
	Details *daemon.Details `json:"details,omitempty"` // as it says now
	Silence string          `json:"silence,omitempty"` // why there are none
}

// gatewaysFound is what was read of the gateways.
type gatewaysFound struct {
	wanted  int
	unread  string // why it is not known how many there are to be; empty: it is
	pods    []kube.GatewayPod
	details map[string]*daemon.Details // by pod, of those that have answered
	silence map[string]string          // of the others, why not
}

// gatewayReader reads them; kube.Client is one.
type gatewayReader interface {
	Gateways(ctx context.Context) ([]kube.GatewayPod, error)
	GatewayNodes(ctx context.Context) (int, error)
	ExecGateway(ctx context.Context, pod string, command ...string) ([]byte, error)
}

// gatewayTime is for all gateways to answer: they do at once, or not at all.
const gatewayTime = 5 * time.Second

// findGateways reads which gateways there are, on one node or, if that is empty, on all,
// and asks them. nil: there are none, and are to be none.
//
// A user who may read all but them, as with a role that was made before there were any,
// is told so, and all else.
func findGateways(ctx context.Context, client gatewayReader, node string) (*gatewaysFound, error) {
	ctx, cancel := context.WithTimeout(ctx, detailsTime)
	defer cancel()
	pods, err := client.Gateways(ctx)
	if kube.IsForbidden(err) {
		return &gatewaysFound{unread: err.Error()}, nil
	}
	if err != nil {
		return nil, err
	}
	found := &gatewaysFound{pods: slices.DeleteFunc(pods, func(p kube.GatewayPod) bool { return p.Leaving || node != "" && p.Node != node })}
	if node == "" {
		found.wanted, err = client.GatewayNodes(ctx)
		if kube.IsForbidden(err) {
			found.unread = err.Error()
		} else if err != nil {
			return nil, err
		}
	}
	if found.wanted == 0 && found.unread == "" && len(found.pods) == 0 {
		return nil, nil
	}
	found.ask(ctx, client.ExecGateway)
	return found, nil
}

// ask has all gateways say how they are.
func (f *gatewaysFound) ask(ctx context.Context, exec execGateway) {
	ctx, cancel := context.WithTimeout(ctx, gatewayTime)
	defer cancel()
	f.details, f.silence = map[string]*daemon.Details{}, map[string]string{}
	var mu sync.Mutex
	var asking sync.WaitGroup
	slots := make(chan struct{}, askAbreast)
	for _, pod := range f.pods {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			details := &daemon.Details{}
			err := askPassing(ctx, pod, exec, "status", details)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				f.silence[pod.Name] = err.Error()
				return
			}
			f.details[pod.Name] = details
		})
	}
	asking.Wait()
}

// judgeGateways says how the gateways are. What is wrong with them and with
// certificates is a problem of the cluster; what is wrong with Ingresses concerns those
// whose they are, who have Events of it, and is counted.
func judgeGateways(f *gatewaysFound) (*gatewaysOutput, []model.Problem) {
	if f == nil {
		return nil, nil
	}
	output := &gatewaysOutput{Wanted: f.wanted, Pods: []gatewayOutput{}, Silence: f.unread}
	var problems []model.Problem
	ready := map[string]bool{} // nodes, of which one gateway suffices
	for _, pod := range f.pods {
		ready[pod.Node] = ready[pod.Node] || pod.Ready
	}
	var knows *daemon.Details // all know the same Ingresses; the one that follows them, knows best
	for _, pod := range f.pods {
		one := gatewayOutput{Node: pod.Node, Pod: pod.Name, State: "ready", Routes: "unknown", Details: f.details[pod.Name], Silence: f.silence[pod.Name]}
		if !pod.Ready {
			one.State = cmp.Or(pod.State, "not ready")
			if !ready[pod.Node] {
				problems = append(problems, gatewayNotReady(pod))
			}
		}
		if d := one.Details; d != nil {
			one.Routes = "current"
			if len(d.Unfed) > 0 {
				one.Routes = "old"
				problems = append(problems, gatewayUnfed(pod, d.Unfed))
			}
			if d.Revision > 0 && (knows == nil || len(d.Unfed) < len(knows.Unfed)) {
				knows = d
			}
		}
		output.Pods = append(output.Pods, one)
	}
	if n := f.wanted - len(ready); n > 0 {
		problems = append(problems, model.Problem{
			Kind: "DaemonSet", Namespace: kube.SystemNamespace, Name: kube.GatewayName, Reason: "GatewayMissing",
			Message: fmt.Sprintf("nodes without a gateway that are to have one: %d of %d", n, f.wanted),
			Remedy:  "see why there is none: kubectl -n kube-system describe daemonset " + kube.GatewayName,
		})
	}
	if knows != nil {
		output.Problems = knows.Problems
		for _, p := range knows.Certificates {
			problems = append(problems, model.Problem(p))
		}
		if more := knows.MoreCertificates; more > 0 {
			problems = append(problems, model.Problem{
				Kind: "Cluster", Name: "certificates", Reason: "MoreCertificates",
				Message: fmt.Sprintf("certificates beside these that end soon, or could not be ordered: %d", more),
				Remedy:  "see all: kubectl get events -A --field-selector source=fairlead; metric nginx_ingress_controller_ssl_expire_time_seconds",
			})
		}
	}
	return output, problems
}

func gatewayNotReady(pod kube.GatewayPod) model.Problem {
	message := fmt.Sprintf("the gateway of node %s is not ready", pod.Node)
	if pod.Node == "" {
		message = "a gateway has no node"
	}
	if pod.State != "" {
		message += " (" + pod.State + ")"
	}
	return model.Problem{
		Kind: "Pod", Namespace: kube.SystemNamespace, Name: pod.Name, Reason: "GatewayNotReady", Message: message,
		Remedy: "see why: kubectl -n kube-system describe pod " + pod.Name + "; kubectl -n kube-system logs " + pod.Name,
	}
}

func gatewayUnfed(pod kube.GatewayPod, why []string) model.Problem {
	return model.Problem{
		Kind: "Pod", Namespace: kube.SystemNamespace, Name: pod.Name, Reason: "GatewayUnfed",
		Message: fmt.Sprintf("the gateway of node %s serves on by what it knew: %s", pod.Node, strings.Join(why, "; ")),
		Remedy:  "see whether the node reaches the API server: kubectl -n kube-system logs " + pod.Name,
	}
}

// gatewayTable writes the gateways, and what there is of Ingresses.
func gatewayTable(to io.Writer, gateways *gatewaysOutput, wide bool, colours palette) error {
	if gateways.Silence != "" {
		fmt.Fprintf(to, "%s\n  next: have yourself allowed to get daemonsets and list pods in namespace %s, if there are gateways\n",
			colours.doubt("gateways: not known: "+gateways.Silence), kube.SystemNamespace)
	}
	if gateways.Silence != "" && len(gateways.Pods) == 0 {
		return nil
	}
	lines := &table{paint: func(column int, cell string) string {
		switch {
		case column != 1 && column != 2:
			return cell
		case cell == "ready", cell == "current":
			return colours.good(cell)
		case cell == "unknown":
			return colours.doubt(cell)
		default:
			return colours.bad(cell)
		}
	}}
	head := []string{"GATEWAY", "STATE", "ROUTES", "HOSTS", "HTTP/3", "VERSION"}
	if wide {
		head = append(head, "LISTENS AT", "POD")
	}
	lines.add(head...)
	silence := ""
	for _, g := range gateways.Pods {
		row := []string{orNone(g.Node), g.State, g.Routes, "", "", ""}
		listens := ""
		if d := g.Details; d != nil {
			row = []string{orNone(g.Node), g.State, g.Routes, strconv.Itoa(d.Hosts), map[bool]string{false: "off", true: "on"}[d.HTTP3], d.Version}
			listens = commas(d.Listening)
		} else if g.State == "ready" {
			silence = g.Silence
		}
		if wide {
			row = append(row, orNone(listens), g.Pod)
		}
		lines.add(row...)
	}
	if err := lines.write(to); err != nil {
		return err
	}
	if silence != "" {
		fmt.Fprintf(to, "%s\n", colours.doubt("not known: "+silence))
	}
	if text := reasons(gateways.Problems); text != "" {
		fmt.Fprintf(to, "\ningresses: %s\n  next: fairlead ingress lint; kubectl get events -A --field-selector source=fairlead\n", text)
	}
	return nil
}

// reasons is such as "3 NoEndpoints, 1 PathTaken"; empty: there are none.
func reasons(counts map[string]int) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%d %s", counts[name], name))
	}
	return strings.Join(parts, ", ")
}
