package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/policy"
)

// Exit codes of the commands of policy. Success is 0.
const (
	exitDenied        exitCode = 1 // of explain: the connection is
	exitChanges       exitCode = 1 // of preview: something does
	exitPolicyUnknown exitCode = 2
)

// policyTime is for all that the API server is asked for.
const policyTime = time.Minute

func policyCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "policy",
		Short: "Explain network policies: why, who reaches whom, and what a change would do",
		Args:  cobra.NoArgs,
	}
	command.AddCommand(policyExplainCommand(), policyMatrixCommand(), policyPreviewCommand(), policyShowCommand())
	return command
}

// policyOptions are the flags of all commands of policy.
type policyOptions struct {
	kube                kube.Options
	namespace, snapshot string
	output              format
}

func (o *policyOptions) flags(command *cobra.Command, formats ...string) {
	flags := command.Flags()
	flags.StringVar(&o.kube.Kubeconfig, "kubeconfig", "", "how to reach the API server; as kubectl finds it if empty")
	flags.StringVarP(&o.namespace, "namespace", "n", "", "of what is named without one; that of the kubeconfig if empty")
	flags.StringVar(&o.snapshot, "snapshot", "", "read the cluster from this file instead; - reads standard input")
	formatFlag(command, &o.output, formats...)
}

// in is the namespace of what is named without.
func (o *policyOptions) in() string {
	switch {
	case o.namespace != "":
		return o.namespace
	case o.snapshot != "":
		return "default"
	}
	return o.kube.Namespace()
}

// read reads the cluster. Problems are of policies that were not understood
// wholly.
func (o *policyOptions) read(ctx context.Context) (*model.Snapshot, []model.Problem, error) {
	if o.snapshot != "" {
		snapshot, err := readSnapshot(o.snapshot)
		if err != nil {
			return nil, nil, &policy.Untold{What: err.Error(), Next: "fairlead policy explain --help says what a snapshot is"}
		}
		return snapshot, nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, policyTime)
	defer cancel()
	o.kube.UserAgent = "fairlead-policy/" + Version
	client, err := kube.Connect(o.kube)
	if err != nil {
		return nil, nil, err
	}
	return client.Policies(ctx)
}

func readSnapshot(file string) (*model.Snapshot, error) {
	from := os.Stdin
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("reading the snapshot: %w", err)
		}
		defer opened.Close()
		from = opened
	}
	snapshot, err := kube.ReadSnapshot(from)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return snapshot, nil
}

// untold says why there is no answer.
func untold(command *cobra.Command, err error) error {
	next := nextOf(err, seeCluster)
	if u := (*policy.Untold)(nil); errors.As(err, &u) {
		next = u.Next
	}
	fmt.Fprintf(command.ErrOrStderr(), "%s: %v\n  next: %s\n", command.CommandPath(), err, next)
	return exitPolicyUnknown
}

// doubts are problems of policies, which say less than their authors meant.
func doubts(command *cobra.Command, problems []model.Problem) {
	if len(problems) == 0 {
		return
	}
	to := command.ErrOrStderr()
	colours := paletteOf(to)
	fmt.Fprintf(to, "%s: of these policies not all is understood, and nothing is allowed by what is not\n", colours.doubt("warning"))
	printProblems(to, colours, problemOutputs(problems))
}
