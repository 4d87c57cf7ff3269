package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"reflect"
	"testing"

	"sigs.k8s.io/yaml"
)

// gatewayNeeds is what a gateway may, and why. Who breaks into one has all of it.
var gatewayNeeds = map[string]map[string]string{
	"ClusterRole fairlead-gateway": {
		"networking.k8s.io/ingresses list":         "where requests go",
		"networking.k8s.io/ingresses watch":        "the same",
		"networking.k8s.io/ingressclasses list":    "which Ingresses are served",
		"networking.k8s.io/ingressclasses watch":   "the same",
		"networking.k8s.io/ingresses/status patch": "the addresses at which they are served",
		"services list":                         "what their backends are",
		"services watch":                        "the same",
		"discovery.k8s.io/endpointslices list":  "where those are",
		"discovery.k8s.io/endpointslices watch": "the same",
		"secrets get":                           "certificates and users that Ingresses name",
		"secrets list":                          "the same, of many at once; and what watching begins with",
		"secrets watch":                         "which of them change: their metadata",
		"nodes list":                            "addresses of the nodes with a gateway, for the status",
		"nodes watch":                           "the same",
		"events create":                         "what is wrong with Ingresses",
		"fairlead.io/networks list":             "the configuration",
		"fairlead.io/networks watch":            "the same",
	},
	"Role fairlead-gateway": {
		"coordination.k8s.io/leases create":                  "the lock of the one that writes; a name cannot restrict create",
		"coordination.k8s.io/leases get fairlead-gateway":    "the same, of this name",
		"coordination.k8s.io/leases update fairlead-gateway": "the same",
	},
}

func TestRolesOfTheGatewayAreNarrow(t *testing.T) { narrow(t, Gateway, gatewayNeeds) }

// TestGatewayIsConfined: it faces everybody, so its pod has nothing of the node, and two
// of them can be on one while the next follows upon the last.
func TestGatewayIsConfined(t *testing.T) {
	var set struct {
		Spec struct {
			UpdateStrategy struct {
				RollingUpdate struct{ MaxSurge, MaxUnavailable *int }
			}
			Template struct {
				Spec struct {
					HostNetwork, HostPID, HostIPC bool
					Volumes                       []any
					SecurityContext               struct {
						RunAsNonRoot   bool
						RunAsUser      int
						SeccompProfile struct{ Type string }
					}
					Containers []struct {
						VolumeMounts    []any
						Ports           []struct{ HostPort int }
						SecurityContext struct {
							Privileged, AllowPrivilegeEscalation, ReadOnlyRootFilesystem *bool
							Capabilities                                                 struct{ Add, Drop []string }
						}
					}
				}
			}
		}
	}
	all := objects(t, Gateway)
	text, err := yaml.Marshal(all["DaemonSet kube-system/fairlead-gateway"])
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &set); err != nil {
		t.Fatal(err)
	}
	pod := set.Spec.Template.Spec
	if pod.HostNetwork || pod.HostPID || pod.HostIPC || len(pod.Volumes) > 0 || !pod.SecurityContext.RunAsNonRoot || pod.SecurityContext.RunAsUser == 0 || pod.SecurityContext.SeccompProfile.Type != "RuntimeDefault" {
		t.Errorf("the pod has more of the node than it needs: %+v", pod)
	}
	if len(pod.Containers) != 1 {
		t.Fatalf("%d containers", len(pod.Containers))
	}
	container := pod.Containers[0]
	context := container.SecurityContext
	if len(container.VolumeMounts) > 0 || context.Privileged != nil || context.AllowPrivilegeEscalation == nil || *context.AllowPrivilegeEscalation ||
		context.ReadOnlyRootFilesystem == nil || !*context.ReadOnlyRootFilesystem || len(context.Capabilities.Add) > 0 || !reflect.DeepEqual(context.Capabilities.Drop, []string{"ALL"}) {
		t.Errorf("the container may do more than it needs: %+v", context)
	}
	for _, port := range container.Ports {
		if port.HostPort != 0 {
			t.Errorf("host port %d keeps the next gateway from a node while the last one is there", port.HostPort)
		}
	}
	if update := set.Spec.UpdateStrategy.RollingUpdate; update.MaxSurge == nil || *update.MaxSurge != 1 || update.MaxUnavailable == nil || *update.MaxUnavailable != 0 {
		t.Errorf("a node is without a gateway while it is replaced: %+v", update)
	}
	service, _ := yaml.Marshal(all["Service kube-system/fairlead-gateway"])
	if !bytes.Contains(service, []byte(`fairlead.io/host-ports: "true"`)) {
		t.Errorf("its Service has no ports of the nodes:\n%s", service)
	}
}

// TestGatewayOfChartIsCurrent: and it has none unless that is asked for.
func TestGatewayOfChartIsCurrent(t *testing.T) {
	want, err := exec.Command("sed", "-f", "helm/gateway.sed", "gateway.yaml").Output()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(chart + "templates/gateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the chart is not made of gateway.yaml: run go generate ./deploy")
	}
	gateway := objects(t, Gateway)
	none := render(t, func(map[string]any) {})
	all := render(t, func(values map[string]any) { values["gateway"].(map[string]any)["enabled"] = true })
	for key := range gateway {
		if none[key] != nil {
			t.Errorf("the chart has %s unasked", key)
		}
		if !reflect.DeepEqual(all[key], gateway[key]) {
			t.Errorf("with gateway.enabled, the chart's %s is\n%v\nthe manifest's\n%v", key, all[key], gateway[key])
		}
	}
}
