package lab

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"
	"text/template"

	"github.com/fairlead-net/fairlead/deploy"
)

//go:embed coredns.yaml
var corednsManifest string

// manifests returns what is deployed into a new cluster.
func (l *Lab) manifests() ([]byte, error) {
	var all bytes.Buffer
	if l.state.Config.Network != None {
		all.Write(deploy.Manifest)
		all.WriteString("\n---\n")
	}
	manifest := corednsManifest
	switch l.state.Config.DNS {
	case None:
		return all.Bytes(), nil
	case "fairlead":
		all.Write(deploy.DNS)
		// In the lab the address is that of its own plan.
		service := strings.Split(corednsManifest, "\n---\n")
		manifest = "---\n" + service[len(service)-1]
	}
	parsed, err := template.New("coredns.yaml").Parse(manifest)
	if err != nil {
		return nil, fmt.Errorf("reading the manifest of CoreDNS: %w", err)
	}
	err = parsed.Execute(&all, map[string]any{
		"Nodes":      l.state.Config.Nodes,
		"Image":      corednsImage,
		"ClusterIPs": l.state.Config.Family.pickText(dnsAddress4, dnsAddress6),
	})
	if err != nil {
		return nil, fmt.Errorf("writing the manifest of CoreDNS: %w", err)
	}
	return all.Bytes(), nil
}
