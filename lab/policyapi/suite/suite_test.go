// Package suite is the conformance tests of sigs.k8s.io/network-policy-api, as
// they are, against the cluster that KUBECONFIG leads to. Package lab/policyapi
// runs it.
package suite

import (
	"flag"
	"testing"

	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"

	api "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/network-policy-api/conformance/tests"
	"sigs.k8s.io/network-policy-api/conformance/utils/suite"
)

var experimental = flag.Bool("experimental", false, "test what is experimental, too")

func TestConformance(t *testing.T) {
	to, err := config.GetConfig()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := client.New(to, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	clients, err := kubernetes.NewForConfig(to)
	if err != nil {
		t.Fatal(err)
	}
	if err := api.Install(objects.Scheme()); err != nil {
		t.Fatal(err)
	}
	options := suite.Options{Client: objects, ClientSet: clients, KubeConfig: *to, EnableAllSupportedFeatures: *experimental}
	s := suite.New(options)
	s.Setup(t)
	s.Run(t, tests.ConformanceTests)
}
