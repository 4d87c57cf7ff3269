package main

import (
	"fmt"
	"strings"

	"github.com/fairlead-net/fairlead/lab"
)

// namespace is that of all that a soak makes; churn labels what comes and goes.
const (
	namespace = "soak"
	churn     = "churn"
)

// container is one that answers by HTTP on port 8080 and by UDP on 8081.
func container(hostPort int) string {
	ports := ""
	if hostPort > 0 {
		ports = fmt.Sprintf(", ports: [{containerPort: 8080, hostPort: %d}]", hostPort)
	}
	return fmt.Sprintf("[{name: agnhost, image: %q, args: [netexec]%s}]", lab.AgnhostImage, ports)
}

// fixedManifest is what is there all the time.
func fixedManifest() string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", namespace)
	for i, node := range fixedNodes {
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Pod
metadata: {namespace: %s, name: fixed%[2]d, labels: {app: fixed%[2]d}}
spec: {nodeName: %[3]s, containers: %[4]s}
`, namespace, i+1, node, container(0))
	}
	fmt.Fprintf(&b, `---
apiVersion: v1
kind: Service
metadata: {namespace: %s, name: %s}
spec:
  type: NodePort
  ipFamilyPolicy: PreferDualStack
  selector: {app: %s}
  ports: [{port: %d, targetPort: 8080, nodePort: %d}]
`, namespace, fixedService, fixedEndpoint, fixedPort, fixedNodePort)
	return b.String()
}

func workloadManifest(name string, replicas int) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {namespace: %s, name: %s, labels: {soak: %s}}
spec:
  replicas: %d
  selector: {matchLabels: {app: %[2]s}}
  template:
    metadata: {labels: {app: %[2]s, soak: %[3]s}}
    spec:
      terminationGracePeriodSeconds: 2
      containers: %[5]s
`, namespace, name, churn, replicas, container(0))
}

func podManifest(name, node string, hostPort int) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {namespace: %s, name: %s, labels: {soak: %s}}
spec: {nodeName: %s, terminationGracePeriodSeconds: 2, containers: %s}
`, namespace, name, churn, node, container(hostPort))
}

func serviceManifest(name, variant, of string) string {
	text := fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {namespace: %s, name: %s, labels: {soak: %s}}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: %s}
`, namespace, name, churn, of)
	web := "  ports: [{name: web, port: 80, targetPort: 8080}]\n"
	switch variant {
	case "NodePort":
		return text + "  type: NodePort\n" + web
	case "Local":
		return text + "  type: NodePort\n  externalTrafficPolicy: Local\n" + web
	case "affinity":
		return text + "  sessionAffinity: ClientIP\n" + web
	case "UDP":
		return text + "  ports: [{name: web, port: 80, targetPort: 8080}, {name: udp, port: 80, protocol: UDP, targetPort: 8081}]\n"
	default:
		return text + web
	}
}
