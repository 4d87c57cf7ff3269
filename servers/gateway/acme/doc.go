// Package acme orders certificates by RFC 8555, and keeps them in Secrets: one gateway
// orders, and all of them read what has come of it, answer what the authority asks
// hosts for (http-01), and serve the certificates. What is to be ordered, and when, is
// planned by plan/certificate.
//
// It knows no Kubernetes: a Store has the Secrets. A State is immutable; Orders.Run is
// called by one gateway at a time, and everything else may be called concurrently.
package acme
