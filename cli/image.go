package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/lab"
	"github.com/fairlead-net/fairlead/lab/image"
)

func imageCommand() *cobra.Command {
	var out, name string
	command := &cobra.Command{
		Use:   "image --out FILE",
		Short: "Write Fairlead's container image, of this program and the fairlead-cni beside it",
		Long: `Write Fairlead's container image, of this program and the fairlead-cni beside
it, as an OCI archive. ctr -n k8s.io images import FILE loads it into a node;
skopeo copy oci-archive:FILE docker://REGISTRY/NAME pushes it.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := writeImage(out, name); err != nil {
				return err
			}
			_, err := fmt.Fprintf(command.OutOrStdout(), "%s holds %s for linux/%s\n", out, name, runtime.GOARCH)
			return err
		},
	}
	command.Flags().StringVar(&out, "out", "fairlead-image.tar", "file to write")
	command.Flags().StringVar(&name, "name", lab.FairleadImage, "name of the image")
	return command
}

func writeImage(out, name string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	plugin := filepath.Join(filepath.Dir(self), "fairlead-cni")
	if _, err := os.Stat(plugin); err != nil {
		return fmt.Errorf("the CNI plugin is not beside this program: %w; make build puts it there", err)
	}
	file, err := os.Create(out)
	if err != nil {
		return fmt.Errorf("writing the image: %w", err)
	}
	defer file.Close()
	if err := image.Write(file, lab.Fairlead(name, self, plugin)); err != nil {
		return fmt.Errorf("writing the image: %w", err)
	}
	return file.Close()
}
