package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// serviceListOutput is what service list -o json prints. It only grows.
type serviceListOutput struct {
	State    string          `json:"state"`           // served, problems or unknown
	Error    string          `json:"error,omitempty"` // why it is unknown
	Next     string          `json:"next,omitempty"`  // what to do then
	Services []serviceOutput `json:"services,omitempty"`
	Unserved []serviceOutput `json:"unserved,omitempty"` // that have nothing to serve
	Problems []problemOutput `json:"problems,omitempty"`
}

func serviceListCommand() *cobra.Command {
	var options kube.Options
	var output format
	var namespace string
	var all bool
	command := &cobra.Command{
		Use:   "list",
		Short: "List the Services that Fairlead serves, with their endpoints and problems",
		Long: `List the Services that Fairlead serves: their addresses, ports, how many of their
endpoints take connections, and what is wrong. Headless ones and such like, which
have no addresses that packets could be sent to, are only counted (-o wide lists
them).

Exit codes: 0 there are no problems, 1 there are some, 2 it cannot be told.`,
		Example: `  fairlead service list
  fairlead service list -A -o wide
  fairlead service list -A -o json | jq -r '.services[] | select(.usableEndpoints == 0) | .name'`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(command.Context(), serviceTime)
			defer cancel()
			options.UserAgent = "fairlead-service/" + Version
			in := cmp.Or(namespace, options.Namespace())
			if all {
				in = ""
			}
			list := serviceListOutput{State: stateUnknown}
			found, err := findServices(ctx, options, model.ServiceKey{Namespace: in})
			if err != nil {
				list.Error, list.Next = err.Error(), nextOf(err, seeCluster)
			} else {
				list = listServices(found)
			}
			if output.structured() {
				err = output.print(command.OutOrStdout(), list)
			} else {
				err = printServices(command.OutOrStdout(), list, in, output.name == inWide)
			}
			if err != nil {
				return err
			}
			return exitOfServices(list.State)
		},
	}
	flags := command.Flags()
	flags.StringVar(&options.Kubeconfig, "kubeconfig", "", "how to reach the API server; as kubectl finds it if empty")
	flags.StringVarP(&namespace, "namespace", "n", "", "of the Services; that of the kubeconfig if empty")
	flags.BoolVarP(&all, "all-namespaces", "A", false, "those of all namespaces")
	command.MarkFlagsMutuallyExclusive("namespace", "all-namespaces")
	formatFlag(command, &output, inText, inWide, inJSON, inYAML)
	return command
}

func exitOfServices(state string) error {
	switch state {
	case stateServed:
		return nil
	case stateProblems:
		return exitUnserved
	default:
		return exitServedUnknown
	}
}

func listServices(found *foundServices) serviceListOutput {
	list := serviceListOutput{State: stateServed, Problems: found.problems()}
	if len(list.Problems) > 0 {
		list.State = stateProblems
	}
	endpoints := bySlices(found.serving.Snapshot)
	for i := range found.serving.Services {
		line := describe(&found.serving.Services[i], endpoints)
		if line.Unserved != "" {
			list.Unserved = append(list.Unserved, line)
		} else {
			list.Services = append(list.Services, line)
		}
	}
	return list
}

func printServices(to io.Writer, list serviceListOutput, namespace string, wide bool) error {
	colours := paletteOf(to)
	if list.Error != "" {
		_, err := fmt.Fprintf(to, "%s: %s\n  next: %s\n", colours.doubt("unknown"), list.Error, list.Next)
		return err
	}
	if len(list.Services)+len(list.Unserved) == 0 {
		where := "in the cluster"
		if namespace != "" {
			where = fmt.Sprintf("in namespace %s (-A looks in all)", namespace)
		}
		_, err := fmt.Fprintf(to, "there are no Services %s\n", where)
		return err
	}
	if len(list.Services) > 0 {
		if err := servicesTable(list.Services, namespace == "", wide, colours).write(to); err != nil {
			return err
		}
	}
	if n := len(list.Unserved); n > 0 && !wide {
		fmt.Fprintf(to, "\n%s no address to serve, as headless ones (-o wide lists them)\n", verb(n, "Service has", "Services have"))
	}
	if len(list.Unserved) > 0 && wide {
		fmt.Fprintln(to)
		t := &table{}
		t.add("NOT SERVED", "WHY")
		for _, s := range list.Unserved {
			t.add(s.Namespace+"/"+s.Name, s.Unserved)
		}
		if err := t.write(to); err != nil {
			return err
		}
	}
	if len(list.Problems) > 0 {
		fmt.Fprintf(to, "\n%s\n", colours.bad(count(len(list.Problems), "problem")))
		printProblems(to, colours, list.Problems)
	}
	return nil
}

// verb is such as "1 Service has".
func verb(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func servicesTable(services []serviceOutput, namespaces, wide bool, colours palette) *table {
	t := &table{}
	heading := []string{"NAME", "TYPE", "ADDRESSES", "PORTS", "ENDPOINTS"}
	if wide {
		heading = append(heading, "POLICIES", "AGE")
	}
	if namespaces {
		heading = append([]string{"NAMESPACE"}, heading...)
	}
	t.add(append(heading, "REMARKS")...)
	for _, s := range services {
		var ports []string
		for _, p := range s.Ports {
			ports = append(ports, p.String())
		}
		row := []string{s.Name, s.Type, addressesText(s, wide), strings.Join(ports, ","), fmt.Sprintf("%d/%d", s.Usable, s.Endpoints)}
		if wide {
			policies := s.Policies
			if s.Affinity != 0 {
				policies = append(policies, fmt.Sprintf("sessionAffinity: ClientIP (%ds)", s.Affinity))
			}
			age := "?"
			if created, err := time.Parse(time.RFC3339, s.Created); err == nil {
				age = time.Since(created).Truncate(time.Second).String()
			}
			row = append(row, orNone(strings.Join(policies, ", ")), age)
		}
		if namespaces {
			row = append([]string{s.Namespace}, row...)
		}
		t.add(append(row, strings.Join(s.Remarks, "; "))...)
	}
	remarks := len(t.rows[0]) - 1
	t.paint = func(column int, cell string) string {
		if column == remarks {
			return colours.doubt(cell)
		}
		return cell
	}
	return t
}

// addressesText is the first address of the cluster and those of outside, unless
// all are wanted.
func addressesText(s serviceOutput, wide bool) string {
	shown := append([]netip.Addr{}, s.ClusterIPs...)
	if !wide && len(shown) > 1 {
		shown = shown[:1]
	}
	return commas(append(shown, s.External...))
}
