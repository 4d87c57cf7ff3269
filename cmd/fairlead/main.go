// Command fairlead is the whole network of a Kubernetes cluster: the agent of
// a node, the controller of the cluster, and the command line to both.
package main

import (
	"os"

	"github.com/fairlead-net/fairlead/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
