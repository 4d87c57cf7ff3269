// Package kube speaks to Kubernetes, and is the only one to do so: it turns
// objects into the words of package model as they arrive, and writes status
// back. It decides nothing; what it makes of objects is what they say. No
// object of client-go leaves it, other than those of api/v1alpha1.
//
// A Client may be used concurrently; so may a Source and Reports, whose Run is
// called once.
package kube
