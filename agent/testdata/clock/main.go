// Command clock says at which moment its first instruction ran, and nothing of
// Go's runtime runs before that: build it with -ldflags=-E=main.start.
package main

func start()

func main() { start() }
