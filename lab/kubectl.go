package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// KubectlCommand is kubectl with the kubeconfig of the lab, to be run on the
// host.
func (l *Lab) KubectlCommand(ctx context.Context, argv ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, filepath.Join(l.state.Binaries, "kubectl"), argv...)
	command.Env = append(os.Environ(), "KUBECONFIG="+l.Kubeconfig())
	return command
}

// Kubectl runs kubectl and returns what it wrote to its output. An error holds
// what it wrote about it.
func (l *Lab) Kubectl(ctx context.Context, argv ...string) (string, error) {
	return run(l.KubectlCommand(ctx, argv...))
}

// Apply applies manifests in YAML.
func (l *Lab) Apply(ctx context.Context, manifests []byte) error {
	command := l.KubectlCommand(ctx, "apply", "--server-side", "--filename=-")
	command.Stdin = bytes.NewReader(manifests)
	_, err := run(command)
	return err
}

// Exec runs a program on a machine and returns what it wrote to its output.
func (l *Lab) Exec(ctx context.Context, machine string, argv ...string) (string, error) {
	return run(l.world.Command(ctx, machine, argv...))
}

func run(command *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return stdout.String(), fmt.Errorf("running %s: %w: %s", filepath.Base(command.Path), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
