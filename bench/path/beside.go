package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"

	"github.com/fairlead-net/fairlead/model"
)

// beside joins the pods by another build of this program, which it calls in the
// node's namespace as
//
//	FILE -join BACKEND -direct=BOOL -node NUMBER
//
// So two versions of what is programmed are measured as one pair. What it leaves
// is the kernel's alone: it cannot be a tunnel in user space.
func beside(file string, backend model.Backend, direct bool) recipe {
	return func(ctx context.Context, _ *world, node int) error {
		other := exec.CommandContext(ctx, file, "-join", string(backend), "-direct="+strconv.FormatBool(direct), "-node", strconv.Itoa(node))
		if out, err := other.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", file, err, out)
		}
		return nil
	}
}

// builds compares this build with another one.
func builds(file string) []comparison {
	if file == "" {
		return nil
	}
	return []comparison{
		{"direct / direct of the other build", fairlead("vxlan", true, 0), beside(file, "vxlan", true), false},
		{"vxlan / vxlan of the other build", fairlead("vxlan", false, 0), beside(file, "vxlan", false), false},
	}
}
