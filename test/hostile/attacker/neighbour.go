package main

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
)

// held is the memory the neighbour must not lose.
var held [64 << 20]byte

// neighbour is a well-behaved web app: a little work for each request.
func neighbour() {
	for i := range held {
		held[i] = byte(i >> 7)
	}
	http.HandleFunc("/memory", func(w http.ResponseWriter, _ *http.Request) {
		status, _ := os.ReadFile("/proc/self/status")
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "VmRSS:") || strings.HasPrefix(line, "VmSwap:") {
				fmt.Fprint(w, line)
			}
		}
	})
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%x\n", sha256.Sum256(held[:16<<10]))
	})
	serve(":" + os.Getenv("PORT"))
}

func serve(addr string) {
	if err := http.ListenAndServe(addr, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// world is what the test starts beyond the host: a server that answers
// everybody, by TCP on port 80 and by UDP.
func world() {
	go func() {
		c, err := net.ListenPacket("udp", ":53")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err == nil {
				_, _ = c.WriteTo(buf[:n], from)
			}
		}
	}()
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.RemoteAddr) })
	serve(":80")
}

func init() { children["world"] = world }
