// Package platform is what the end-to-end tests share: it builds the programs,
// runs instances of the whole through `manifold run`, and does to them what
// users and operators do. It drives everything from outside, and must never
// import a room of the platform: what it knows of it is what its README says.
//
//	build.go     the programs and the stack image, made once
//	instance.go  one running platform and its settings
//	client.go    what a user does to it: API, git, requests, heroku CLI
//	host.go      what the host shows of it: mounts, cgroups, links, rules
package platform
