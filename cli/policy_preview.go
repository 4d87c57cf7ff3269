package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/observe/policy"
)

func policyPreviewCommand() *cobra.Command {
	var options policyOptions
	var files []string
	var remove bool
	command := &cobra.Command{
		Use:   "preview -f FILE",
		Short: "Say what policies would change, before they are applied",
		Long: `Say which new connections would be denied or allowed if the NetworkPolicies and
ClusterNetworkPolicies of files were applied, or deleted: from whom to whom, at which
ports, and by which rule. Nothing is changed. Connections that there are go on, unless
the Network says otherwise (spec.policy.established).

Exit codes: 0 nothing would change, 1 something would, 2 it cannot be told.`,
		Example: `  fairlead policy preview -f new.yaml
  kustomize build policies | fairlead policy preview -f - -n shop
  kubectl get netpol -n shop deny-all -o yaml | fairlead policy preview -f - --delete
  fairlead policy preview -f new.yaml --snapshot cluster.yaml -o json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			set := &kube.PolicySet{}
			for _, file := range files {
				if err := readPolicies(file, options.in(), set); err != nil {
					return untold(command, &policy.Untold{What: err.Error(), Next: "correct the file; kubectl apply --dry-run=server -f " + file + " checks it, too"})
				}
			}
			if set.Len() == 0 {
				return untold(command, &policy.Untold{What: "there is no policy in the files", Next: "name files with NetworkPolicies or ClusterNetworkPolicies"})
			}
			snapshot, problems, err := options.read(command.Context())
			if err != nil {
				return untold(command, err)
			}
			preview, err := policy.PreviewOf(snapshot, policy.Edit{Policies: set.Policies, ClusterPolicies: set.ClusterPolicies, Delete: remove})
			if err != nil {
				return untold(command, err)
			}
			if options.output.structured() {
				err = options.output.print(command.OutOrStdout(), preview)
			} else {
				if doubts(command, append(problems, set.Problems...)); err == nil {
					err = preview.Text(command.OutOrStdout(), policy.Style{Colour: paletteOf(command.OutOrStdout()).on})
				}
			}
			if err == nil && len(preview.Changes) > 0 {
				return exitChanges
			}
			return err
		},
	}
	flags := command.Flags()
	flags.StringArrayVarP(&files, "filename", "f", nil, "file of policies; - reads standard input; may be given several times")
	flags.BoolVar(&remove, "delete", false, "they are to be deleted, not applied")
	options.flags(command, inText, inJSON, inYAML)
	if err := command.MarkFlagRequired("filename"); err != nil {
		panic(err) // the flag is defined above
	}
	return command
}

func readPolicies(file, namespace string, to *kube.PolicySet) error {
	from := os.Stdin
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("reading policies: %w", err)
		}
		defer opened.Close()
		from = opened
	}
	if info, err := from.Stat(); err == nil && info.IsDir() {
		return errors.New("reading policies: " + file + " is a directory: name its files")
	}
	if err := kube.ReadPolicies(from, namespace, to); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
