package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/ingress"
)

// Exit codes of the commands of ingress. Success is 0.
const (
	exitNotHonoured    exitCode = 1 // of lint: something is not
	exitIngressUnknown exitCode = 2
)

// ingressTime is for all that the API server is asked for.
const ingressTime = time.Minute

func ingressCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "ingress",
		Short: "Explain Ingresses: which rule takes a URL, and what manifests will do here",
		Args:  cobra.NoArgs,
	}
	command.AddCommand(ingressLintCommand(), ingressListCommand(), ingressExplainCommand(), ingressTopCommand())
	return command
}

// ingressOptions are the flags of all commands of ingress.
type ingressOptions struct {
	kube      kube.Options
	namespace string
	files     []string
	nginx     bool
	network   bool // of the cluster, which says what is served, if nginx does not
	output    format
}

func (o *ingressOptions) flags(command *cobra.Command, formats ...string) {
	flags := command.Flags()
	flags.StringVar(&o.kube.Kubeconfig, "kubeconfig", "", "how to reach the API server; as kubectl finds it if empty")
	flags.StringVarP(&o.namespace, "namespace", "n", "", "of objects in files that name none; that of the kubeconfig if empty")
	flags.StringArrayVarP(&o.files, "filename", "f", nil, "file of manifests, or a directory of them, instead of the cluster; - reads standard input; may be given several times")
	flags.BoolVar(&o.nginx, "nginx-compatible", true, "Ingresses of ingress-nginx are served, as spec.ingress.nginxCompatible of the Network has it")
	formatFlag(command, &o.output, formats...)
}

// read reads files or the cluster. Problems are of what was not understood wholly.
func (o *ingressOptions) read(ctx context.Context) (*model.Snapshot, []model.Problem, error) {
	var snapshot *model.Snapshot
	var problems []model.Problem
	var err error
	if len(o.files) > 0 {
		snapshot, problems, err = o.readFiles()
	} else {
		snapshot, problems, err = o.readCluster(ctx)
	}
	if err != nil {
		return nil, nil, err
	}
	if !o.network {
		network := *snapshot.Network
		network.Ingress.NginxCompatible = o.nginx
		snapshot.Network = &network
	}
	return snapshot, problems, nil
}

func (o *ingressOptions) readCluster(ctx context.Context) (*model.Snapshot, []model.Problem, error) {
	ctx, cancel := context.WithTimeout(ctx, ingressTime)
	defer cancel()
	o.kube.UserAgent = "fairlead-ingress/" + Version
	client, err := kube.Connect(o.kube)
	if err != nil {
		return nil, nil, err
	}
	return client.Ingresses(ctx)
}

// readCertificates says what the certificates are that an explanation names, as far as
// the user may read them.
func (o *ingressOptions) readCertificates(ctx context.Context, e *ingress.Explanation) {
	ctx, cancel := context.WithTimeout(ctx, ingressTime)
	defer cancel()
	client, err := kube.Connect(o.kube)
	if err != nil {
		return // it has just been connected to
	}
	for i := range e.Certificates {
		c := &e.Certificates[i]
		namespace, name, ok := strings.Cut(c.Secret, "/")
		if !ok {
			continue
		}
		found, err := client.Certificate(ctx, model.SecretKey{Namespace: namespace, Name: name})
		switch {
		case err == nil:
			c.Is = fmt.Sprintf("it is by %s, for %s, and ends at %s", cmp.Or(found.Issuer.CommonName, "nobody"), strings.Join(found.DNSNames, ", "), found.NotAfter.UTC().Format(time.RFC3339))
		case kube.IsNotFound(err):
			c.Is = "there is none"
		default:
			c.Is = err.Error()
		}
	}
}

func (o *ingressOptions) readFiles() (*model.Snapshot, []model.Problem, error) {
	snapshot := &model.Snapshot{Revision: 1, Network: model.DefaultNetwork()}
	namespace := o.namespace
	if namespace == "" {
		namespace = o.kube.Namespace()
	}
	var problems []model.Problem
	for _, name := range o.files {
		files, err := manifestsIn(name)
		if err != nil {
			return nil, nil, &ingress.Untold{What: err.Error(), Next: "name a file, or a directory of manifests"}
		}
		for _, file := range files {
			found, err := readManifest(file, namespace, snapshot)
			if err != nil {
				return nil, nil, &ingress.Untold{What: fmt.Sprintf("%s: %v", file, err), Next: "correct the file; kubectl apply --dry-run=server -f " + file + " checks it, too"}
			}
			problems = append(problems, found...)
		}
	}
	if snapshot.Ingresses.Len() == 0 {
		return nil, nil, &ingress.Untold{What: "there is no Ingress in the files", Next: "name files with Ingresses; templates have to be rendered first, as by helm template"}
	}
	return snapshot, problems, nil
}

// manifestsIn are the files of a directory and those below it, or the file itself.
func manifestsIn(name string) (all []string, err error) {
	if name == "-" {
		return []string{name}, nil
	}
	info, err := os.Stat(name)
	if err != nil || !info.IsDir() {
		return []string{name}, err
	}
	err = filepath.WalkDir(name, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
			all = append(all, path)
		}
		return err
	})
	return all, err
}

func readManifest(file, namespace string, to *model.Snapshot) ([]model.Problem, error) {
	from := os.Stdin
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer opened.Close()
		from = opened
	}
	return kube.ReadIngresses(from, namespace, to)
}

// ingressUntold says why there is no answer.
func ingressUntold(command *cobra.Command, err error) error {
	next := nextOf(err, "see whether the cluster can be reached: kubectl get ingress -A")
	if u := (*ingress.Untold)(nil); errors.As(err, &u) {
		next = u.Next
	}
	fmt.Fprintf(command.ErrOrStderr(), "%s: %v\n  next: %s\n", command.CommandPath(), err, next)
	return exitIngressUnknown
}

func ingressStyle(command *cobra.Command) ingress.Style {
	return ingress.Style{Colour: paletteOf(command.OutOrStdout()).on}
}

func ingressLintCommand() *cobra.Command {
	var options ingressOptions
	var all bool
	command := &cobra.Command{
		Use:   "lint",
		Short: "Say, before moving, what each Ingress and annotation of ingress-nginx will do here",
		Long: `Say what Fairlead will make of Ingresses as they are: of each annotation whether it
is honoured, not needed, refused or unknown, and what is wrong with hosts, paths and
backends. An annotation that protects and cannot be honoured closes its Ingress: all
requests are answered with 503.

Exit codes: 0 all is honoured, 1 something is not, 2 it cannot be told.`,
		Example: `  fairlead ingress lint
  fairlead ingress lint -f manifests/ --all
  helm template shop | fairlead ingress lint -f - -n shop -o json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			snapshot, problems, err := options.read(command.Context())
			if err != nil {
				return ingressUntold(command, err)
			}
			lint := ingress.LintOf(snapshot, problems, len(options.files) == 0)
			if options.output.structured() {
				err = options.output.print(command.OutOrStdout(), lint)
			} else {
				err = lint.Text(command.OutOrStdout(), all, ingressStyle(command))
			}
			if err == nil && lint.Counts.Partly+lint.Counts.Closed > 0 {
				return exitNotHonoured
			}
			return err
		},
	}
	command.Flags().BoolVar(&all, "all", false, "name the annotations that are honoured, too")
	options.flags(command, inText, inJSON, inYAML)
	return command
}

func ingressListCommand() *cobra.Command {
	var options ingressOptions
	command := &cobra.Command{
		Use:   "list",
		Short: "List hosts and paths, in the order in which they are tried, and where they lead",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			options.network = len(options.files) == 0 && !command.Flags().Changed("nginx-compatible")
			snapshot, _, err := options.read(command.Context())
			if err != nil {
				return ingressUntold(command, err)
			}
			list := ingress.List(snapshot)
			if options.output.structured() {
				return options.output.print(command.OutOrStdout(), list)
			}
			return ingress.ListText(command.OutOrStdout(), list)
		},
	}
	options.flags(command, inText, inJSON, inYAML)
	return command
}

func ingressExplainCommand() *cobra.Command {
	var options ingressOptions
	command := &cobra.Command{
		Use:   "explain URL",
		Short: "Say which rule takes a URL and why, what is done to the request, and where it goes",
		Example: `  fairlead ingress explain https://shop.example.org/api/v1
  fairlead ingress explain shop.example.org/app -f manifests/`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			options.network = len(options.files) == 0 && !command.Flags().Changed("nginx-compatible")
			snapshot, _, err := options.read(command.Context())
			if err != nil {
				return ingressUntold(command, err)
			}
			explanation, err := ingress.Explain(snapshot, args[0])
			if err != nil {
				return ingressUntold(command, err)
			}
			if len(options.files) == 0 {
				options.readCertificates(command.Context(), explanation)
			}
			if options.output.structured() {
				return options.output.print(command.OutOrStdout(), explanation)
			}
			return explanation.Text(command.OutOrStdout(), len(options.files) == 0, ingressStyle(command))
		},
	}
	options.flags(command, inText, inJSON, inYAML)
	return command
}
