// Package feed is how the DNS server of a node, a process without rights, is told
// what names are made of: by the agent, over a unix socket. A Sender is the agent's
// end and a Receiver the server's; each is run once, and its other methods may be
// called from anywhere. A State can be kept in a file, in the words of the socket.
//
// # The socket
//
// The server dials, and again whenever the connection ends. Both ends then write
// lines, each a JSON object with a kind and what is put or gone:
//
//	{"kind":"hello","put":{"version":2}}
//	{"kind":"serving","put":{"listen":["10.96.0.10:53"],"clients":["10.244.0.0/16"]}}
//	{"kind":"service","put":{"namespace":"default","name":"web","addresses":["10.96.0.20"]}}
//	{"kind":"revision","put":{"revision":17,"whole":true}}
//	{"kind":"service","gone":{"namespace":"default","name":"web"}}
//	{"kind":"revision","put":{"revision":18}}
//
// What comes before the first revision is all that there is; after it, come
// differences. What was put and is gone counts as of the next revision, all of it
// at once. Until the agent has read all of the cluster's Services there is no
// revision, and the server answers with what it knows from before. The server
// says which revision it serves, and all that users have to mend of what it does:
//
//	{"kind":"served","put":{"revision":18}}
//	{"kind":"problems","put":[{"Kind":"Network","Name":"default","Field":"spec.dns.upstreams"}]}
//
// Of names that policies allow ("domains" of serving), the server says what it is about
// to tell pods, and the agent when packets to the addresses pass:
//
//	{"kind":"resolved","put":{"id":7,"names":[{"name":"www.example.org","addresses":["192.0.2.1"],"ttl":30}]}}
//	{"kind":"installed","put":{"ids":[7]}}
//
// Kinds and fields that an end does not know it ignores; what is missing is empty.
// So an agent and a server of different versions understand each other. The
// version is for people who read it.
package feed
