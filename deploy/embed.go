// Package deploy has the manifest that installs Fairlead in a cluster. It
// applies nothing. What it has may be read concurrently, and never written.
package deploy

import (
	_ "embed" // for Manifest
)

//go:generate sh -c "cat crd/*.yaml base.yaml >fairlead.yaml"
//go:generate sh -c "sed -f helm/chart.sed fairlead.yaml >helm/fairlead/templates/fairlead.yaml"

//go:generate sh -c "sed -f helm/dns.sed dns.yaml >helm/fairlead/templates/dns.yaml"
//go:generate sh -c "sed -f helm/dns-service.sed dns-service.yaml >helm/fairlead/templates/dns-service.yaml"

//go:generate sh -c "sed -f helm/gateway.sed gateway.yaml >helm/fairlead/templates/gateway.yaml"
//go:generate sh -c "sed -f helm/gateway-acme.sed gateway-acme.yaml >helm/fairlead/templates/gateway-acme.yaml"

// The kind ClusterNetworkPolicy is Kubernetes', and optional. It is made of its Go
// types.
//
//go:generate sh -c "go tool controller-gen crd:maxDescLen=0 paths=sigs.k8s.io/network-policy-api/apis/v1alpha2 output:stdout | sed -f clusterpolicy.sed >clusternetworkpolicy.yaml"
//go:generate sh -c "go tool controller-gen crd:maxDescLen=0 paths=sigs.k8s.io/network-policy-api/apis/v1alpha2 output:stdout | sed -f clusterpolicy-experimental.sed >clusternetworkpolicy-experimental.yaml"
//go:generate sh -c "sed -f helm/clusterpolicy.sed clusternetworkpolicy.yaml >helm/fairlead/templates/clusternetworkpolicy.yaml"

// Manifest is fairlead.yaml, for kubectl apply --server-side: the kinds of
// api/v1alpha1 as generated, and base.yaml.
//
//go:embed fairlead.yaml
var Manifest []byte

// DNS is dns.yaml, and DNSService dns-service.yaml: the DNS server of each node,
// and the Service that it is reached by in a cluster that has none.
//
//go:embed dns.yaml
var DNS []byte

//go:embed dns-service.yaml
var DNSService []byte

// Gateway is gateway.yaml: what serves Ingresses, on each node.
//
//go:embed gateway.yaml
var Gateway []byte

// GatewayACME is gateway-acme.yaml: where the gateways keep certificates that they
// order, and that they may.
//
//go:embed gateway-acme.yaml
var GatewayACME []byte
