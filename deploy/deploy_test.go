package deploy

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// document is what the tests look at.
type document struct {
	Kind     string
	Metadata struct{ Namespace, Name string }
	Spec     struct {
		Template struct {
			Spec struct {
				HostNetwork        bool
				DNSPolicy          string
				ServiceAccountName string
			}
		}
	}
	Rules []struct{ APIGroups, Resources, ResourceNames, Verbs []string }
}

func documents(t *testing.T, manifest []byte) []document {
	t.Helper()
	var all []document
	for i, text := range bytes.Split(manifest, []byte("\n---\n")) {
		var d document
		if err := yaml.Unmarshal(text, &d); err != nil {
			t.Fatalf("document %d: %v", i+1, err)
		}
		if d.Kind == "" || d.Metadata.Name == "" {
			t.Errorf("document %d has no kind or no name", i+1)
		}
		all = append(all, d)
	}
	return all
}

func TestManifestIsCurrent(t *testing.T) {
	parts, err := filepath.Glob("crd/*.yaml")
	if err != nil || len(parts) == 0 {
		t.Fatalf("no kinds: %v", err)
	}
	var want []byte
	for _, part := range append(parts, "base.yaml") {
		content, err := os.ReadFile(part)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, content...)
	}
	if !bytes.Equal(Manifest, want) {
		t.Error("fairlead.yaml is not made of crd/ and base.yaml: run go generate ./api/... ./deploy")
	}
	if len(Manifest) > 100<<10 {
		t.Errorf("the manifest has %d bytes, more than 100 KiB", len(Manifest))
	}
}

// TestManifestStandsAlone: what makes the pod network must not need it.
func TestManifestStandsAlone(t *testing.T) {
	workloads := 0
	for _, d := range documents(t, Manifest) {
		if d.Kind != "DaemonSet" && d.Kind != "Deployment" {
			continue
		}
		workloads++
		pod := d.Spec.Template.Spec
		if !pod.HostNetwork || pod.DNSPolicy != "Default" {
			t.Errorf("%s %s needs the network that it makes", d.Kind, d.Metadata.Name)
		}
		if pod.ServiceAccountName != d.Metadata.Name {
			t.Errorf("%s %s runs as %q", d.Kind, d.Metadata.Name, pod.ServiceAccountName)
		}
	}
	if workloads != 2 {
		t.Errorf("%d workloads, want 2", workloads)
	}
}

// needed is what each role may, and why. What is not here is not granted.
var needed = map[string]map[string]string{
	"ClusterRole fairlead-agent": {
		"nodes list":                                            "where other nodes are, and the ranges of their pods",
		"nodes watch":                                           "the same",
		"nodes get":                                             "the UID of its own node, which owns its NodeNetwork",
		"pods list":                                             "its own node's pods: their ports, and those of other networks",
		"pods watch":                                            "the same",
		"pods get":                                              "a pod that is to be connected before the watch has told of it",
		"fairlead.io/networks list":                             "the configuration",
		"fairlead.io/networks watch":                            "the same",
		"fairlead.io/nodenetworks get":                          "what it said before it was restarted",
		"fairlead.io/nodenetworks create":                       "it makes its own; a policy keeps it from others'",
		"fairlead.io/nodenetworks/status update":                "its health",
		"services list":                                         "where their addresses lead",
		"services watch":                                        "the same",
		"discovery.k8s.io/endpointslices list":                  "the endpoints of Services, and the addresses of the API servers",
		"discovery.k8s.io/endpointslices watch":                 "the same",
		"networking.k8s.io/servicecidrs list":                   "the ranges of Services' addresses",
		"networking.k8s.io/servicecidrs watch":                  "the same",
		"networking.k8s.io/networkpolicies list":                "what is forbidden",
		"networking.k8s.io/networkpolicies watch":               "the same",
		"namespaces list":                                       "their labels, by which policies choose",
		"namespaces watch":                                      "the same",
		"policy.networking.k8s.io/clusternetworkpolicies list":  "what is forbidden, if the cluster has the kind",
		"policy.networking.k8s.io/clusternetworkpolicies watch": "the same",
		"apiextensions.k8s.io/customresourcedefinitions list clusternetworkpolicies.policy.networking.k8s.io":  "whether the cluster has that kind",
		"apiextensions.k8s.io/customresourcedefinitions watch clusternetworkpolicies.policy.networking.k8s.io": "the same",
		"events create": "pods that get no address",
	},
	"ClusterRole fairlead-controller": {
		"nodes list":                                          "which nodes should report",
		"nodes watch":                                         "the same",
		"fairlead.io/networks get":                            "to write its status",
		"fairlead.io/networks list":                           "the configuration",
		"fairlead.io/networks watch":                          "the same",
		"fairlead.io/networks create":                         "the object default, if there is none",
		"fairlead.io/networks/status update":                  "the health of all nodes",
		"fairlead.io/nodenetworks list":                       "what nodes report",
		"fairlead.io/nodenetworks watch":                      "the same",
		"events create":                                       "nodes whose network fails, and what users have to mend",
		"pods get":                                            "the UID of a pod that an Event is about",
		"services get":                                        "the same of a Service",
		"discovery.k8s.io/endpointslices get":                 "the same of an EndpointSlice",
		"networking.k8s.io/networkpolicies get":               "the same of a NetworkPolicy",
		"policy.networking.k8s.io/clusternetworkpolicies get": "the same of a ClusterNetworkPolicy",
	},
	"Role fairlead-controller": {
		"coordination.k8s.io/leases create":                     "the lock of the leader; a name cannot restrict create",
		"coordination.k8s.io/leases get fairlead-controller":    "the same, of this name",
		"coordination.k8s.io/leases update fairlead-controller": "the same",
	},
}

// TestRolesAreNarrow: every permission has a reason, and nobody reads secrets or
// deletes.
func TestRolesAreNarrow(t *testing.T) { narrow(t, Manifest, needed) }

// narrow compares the roles of a manifest with what is needed, and why.
func narrow(t *testing.T, manifest []byte, needed map[string]map[string]string) {
	t.Helper()
	seen := 0
	for _, d := range documents(t, manifest) {
		if len(d.Rules) == 0 {
			continue
		}
		role := d.Kind + " " + d.Metadata.Name
		granted := map[string]bool{}
		for _, rule := range d.Rules {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						granted[strings.TrimSpace(strings.TrimPrefix(group+"/", "/")+resource+" "+verb+" "+strings.Join(rule.ResourceNames, " "))] = true
					}
				}
			}
		}
		seen++
		for what := range granted {
			if needed[role][what] == "" {
				t.Errorf("%s may %s, and nobody says why: take it away, or say why in the test", role, what)
			}
		}
		for what, why := range needed[role] {
			if !granted[what] {
				t.Errorf("%s may not %s, which it needs for this: %s", role, what, why)
			}
		}
	}
	if seen != len(needed) {
		t.Errorf("%d roles, want %d", seen, len(needed))
	}
}
