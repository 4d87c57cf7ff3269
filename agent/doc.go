// Package agent is the part of Fairlead that runs on every node: it connects
// pods as the container runtime asks, keeps the kernel as the plan says, and
// tells the cluster how that goes. It is wiring and loops; what should be is
// decided in plan, and how it is carried out in the data planes. Run is all
// that others call, once in a process.
package agent
