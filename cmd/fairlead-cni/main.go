// Command fairlead-cni is the CNI plugin of Fairlead. A container runtime runs
// it for each pod that comes or goes; it asks the agent of the node and exits.
// Called by the name loopback, it is that plugin, on nodes that have none.
package main

import (
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/fairlead-net/fairlead/cni"
)

func main() {
	if filepath.Base(os.Args[0]) == cni.LoopbackName {
		skel.PluginMainFuncs(cni.Loopback(), version.All, "CNI plugin loopback, of Fairlead")
		return
	}
	skel.PluginMainFuncs(cni.Plugin(), version.All, "CNI plugin fairlead-cni")
}
