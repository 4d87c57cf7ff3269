// Command fairlead-cni is the CNI plugin of Fairlead. A container runtime runs
// it for each pod that comes or goes; it asks the agent of the node and exits.
package main

import (
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/fairlead-net/fairlead/cni"
)

func main() {
	skel.PluginMainFuncs(cni.Plugin(), version.All, "CNI plugin fairlead-cni")
}
