package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"reflect"
	"testing"

	"sigs.k8s.io/yaml"
)

// dnsPod is what the tests look at in dns.yaml.
type dnsPod struct {
	Metadata struct{ Labels map[string]string }
	Spec     struct {
		HostNetwork                  bool
		DNSPolicy, PriorityClassName string
		AutomountServiceAccountToken *bool
		ServiceAccountName           string
		Tolerations                  []struct{ Operator, Key string }
		Containers                   []struct {
			SecurityContext struct {
				Privileged, AllowPrivilegeEscalation, ReadOnlyRootFilesystem *bool
				Capabilities                                                 struct{ Add, Drop []string }
			}
		}
	}
}

// TestDNSIsSelected: the Service that every cluster has selects the server, which
// nothing in the cluster trusts.
func TestDNSIsSelected(t *testing.T) {
	var set struct {
		Spec struct {
			Selector struct{ MatchLabels map[string]string }
			Template dnsPod
		}
	}
	var service struct {
		Metadata struct{ Namespace, Name string }
		Spec     struct {
			Selector  map[string]string
			ClusterIP string
		}
	}
	if err := yaml.Unmarshal(DNS, &set); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(DNSService, &service); err != nil {
		t.Fatal(err)
	}
	if service.Metadata.Namespace != "kube-system" || service.Metadata.Name != "kube-dns" || service.Spec.ClusterIP == "" {
		t.Errorf("the Service is %+v; its address has to be said", service)
	}
	pod := set.Spec.Template
	for key, value := range service.Spec.Selector {
		if pod.Metadata.Labels[key] != value {
			t.Errorf("the Service does not select the server: %s is not %s", key, value)
		}
		if set.Spec.Selector.MatchLabels[key] != "" {
			t.Errorf("the DaemonSet selects by %s, which pods of others have", key)
		}
	}
	if !pod.Spec.HostNetwork || pod.Spec.DNSPolicy != "Default" {
		t.Error("the server needs the network that it is part of, or asks itself")
	}
	if mount := pod.Spec.AutomountServiceAccountToken; mount == nil || *mount || pod.Spec.ServiceAccountName != "" {
		t.Error("the server has a token")
	}
	if pod.Spec.PriorityClassName == "" || len(pod.Spec.Tolerations) != 1 || pod.Spec.Tolerations[0].Operator != "Exists" || pod.Spec.Tolerations[0].Key != "" {
		t.Error("the server is not on all nodes")
	}
	context := pod.Spec.Containers[0].SecurityContext
	if context.Privileged != nil || context.AllowPrivilegeEscalation == nil || *context.AllowPrivilegeEscalation ||
		context.ReadOnlyRootFilesystem == nil || !*context.ReadOnlyRootFilesystem || !reflect.DeepEqual(context.Capabilities.Drop, []string{"ALL"}) {
		t.Errorf("the server may do more than it needs: %+v", context)
	}
}

// TestDNSOfChartIsCurrent: and it has no DNS unless that is asked for.
func TestDNSOfChartIsCurrent(t *testing.T) {
	for _, name := range []string{"dns", "dns-service"} {
		want, err := exec.Command("sed", "-f", "helm/"+name+".sed", name+".yaml").Output()
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(chart + "templates/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("the chart is not made of %s.yaml: run go generate ./deploy", name)
		}
	}
	const set, service = "DaemonSet kube-system/fairlead-dns", "Service kube-system/kube-dns"
	if all := render(t, func(map[string]any) {}); all[set] != nil || all[service] != nil {
		t.Error("the chart serves DNS unasked")
	}
	dns := func(values map[string]any) map[string]any { return values["dns"].(map[string]any) }
	all := render(t, func(values map[string]any) { dns(values)["enabled"] = true })
	if want := objects(t, DNS); !reflect.DeepEqual(all[set], want[set]) || all[service] != nil {
		t.Errorf("with dns.enabled the chart has %v, and %v", all[set], all[service])
	}
	all = render(t, func(values map[string]any) { dns(values)["enabled"], dns(values)["clusterIP"] = true, "10.96.0.10" })
	if want := objects(t, DNSService); !reflect.DeepEqual(all[service], want[service]) {
		t.Errorf("with dns.clusterIP the chart has %v", all[service])
	}
}
