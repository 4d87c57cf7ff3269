package cli

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/lab"
	"github.com/fairlead-net/fairlead/lab/build"
	"github.com/fairlead-net/fairlead/lab/image"
)

// imageOptions are the flags of fairlead image.
type imageOptions struct {
	out, name, version, source string
	architectures              []string
}

func imageCommand() *cobra.Command {
	var o imageOptions
	command := &cobra.Command{
		Use:   "image --out FILE",
		Short: "Build Fairlead's container image from a checkout",
		Long: `Build Fairlead's container image from a checkout, for several architectures, as
an OCI archive. Neither Docker nor a registry is needed, and the same source and
the same Go make the same file, whoever builds it and wherever.

  ctr -n k8s.io images import FILE                             into a node
  skopeo copy --all oci-archive:FILE docker://REGISTRY/NAME    into a registry`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			digest, err := o.write(command.Context(), command.ErrOrStderr())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(command.OutOrStdout(), "%s holds %s %s for linux/%s\nsha256:%x\n",
				o.out, o.name, o.version, strings.Join(o.architectures, " and linux/"), digest)
			return err
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.out, "out", "fairlead-image.tar", "file to write")
	flags.StringVar(&o.name, "name", lab.FairleadImage, "name of the image")
	flags.StringVar(&o.version, "version", Version, "what the programs say they are")
	flags.StringVar(&o.source, "source", "", "checkout to build from; without, the one around the working directory")
	flags.StringSliceVar(&o.architectures, "arch", []string{"amd64", "arm64"}, "architectures to build for")
	return command
}

// write returns the SHA-256 of the file.
func (o *imageOptions) write(ctx context.Context, log io.Writer) ([]byte, error) {
	dir, err := os.MkdirTemp("", "fairlead-image-")
	if err != nil {
		return nil, fmt.Errorf("making a build directory: %w", err)
	}
	defer os.RemoveAll(dir)
	var variants []image.Image
	for _, architecture := range o.architectures {
		programs, err := build.Request{Source: o.source, Out: log}.Release(ctx, dir, architecture, o.version)
		if err != nil {
			return nil, err
		}
		variants = append(variants, lab.Fairlead(o.name, architecture, programs.Fairlead, programs.FairleadCNI))
	}
	file, err := os.Create(o.out)
	if err != nil {
		return nil, fmt.Errorf("writing the image: %w", err)
	}
	defer file.Close()
	sum := sha256.New()
	if err := image.Write(io.MultiWriter(file, sum), variants...); err != nil {
		return nil, fmt.Errorf("writing the image: %w", err)
	}
	return sum.Sum(nil), file.Close()
}
