package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Release builds Fairlead for an architecture (a GOARCH) into a directory, as a
// release ships it: the same source and the same Go make the same bytes, whoever
// builds and wherever the checkout lies. version is what the programs say they
// are.
func (r Request) Release(ctx context.Context, dir, architecture, version string) (Programs, error) {
	source, err := FindSource(r.Source)
	if err != nil {
		return Programs{}, err
	}
	r.Source = source
	dir = filepath.Join(dir, architecture)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Programs{}, fmt.Errorf("making a build directory: %w", err)
	}
	r.environment = append(neutral[:len(neutral):len(neutral)], "GOARCH="+architecture)
	err = r.goTool(ctx, source, "build", "-v", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -buildid= -X "+modulePath+"/cli.Version="+version,
		"-o", dir+"/", "./cmd/fairlead", "./cmd/fairlead-cni")
	if err != nil {
		return Programs{}, fmt.Errorf("building Fairlead for linux/%s: %w", architecture, err)
	}
	return Programs{Fairlead: filepath.Join(dir, "fairlead"), FairleadCNI: filepath.Join(dir, "fairlead-cni")}, nil
}

// neutral are the settings of the builder that would show in what is built.
var neutral = []string{"GOOS=linux", "GOFLAGS=", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0", "GOFIPS140=off"}
