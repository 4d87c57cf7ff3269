// Package gateway plans what becomes of requests that come from outside of the
// cluster: by host and path, to which Service, and what is done to them on the way.
// It is pure. The words are those of the Gateway API; what they are made from are
// Ingresses (networking.k8s.io/v1), with the annotations of ingress-nginx 1.15 that
// people use.
//
// An annotation is data here, never the text of a configuration: each is parsed
// into a value of its own type, and what cannot be is a Problem. One that protects
// (who may call, with what password) and is not understood closes the routes of its
// Ingress, since the alternative is to leave them open.
//
// A Table is immutable and may be read concurrently.
package gateway
