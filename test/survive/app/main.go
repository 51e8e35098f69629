// Command app is what the dynos of the survival tests run: it answers requests
// and writes numbered lines, at a steady rate, so that whoever reads them can
// tell which are missing. At SIGTERM it says how many it wrote.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	host, _ := os.Hostname() // the run's id
	written := make(chan int)
	go func() { written <- write(ctx, host) }()
	server := &http.Server{Addr: ":" + os.Getenv("PORT"), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, host)
	})}
	go func() {
		if err := server.ListenAndServe(); err != http.ErrServerClosed {
			fmt.Fprintln(os.Stderr, "cannot serve:", err)
			os.Exit(1)
		}
	}()
	<-ctx.Done()
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = server.Shutdown(grace) // whatever is open then is the router's failure to see
	fmt.Printf("end %d of %s\n", <-written, host)
}

// write writes $LINES lines a second until ctx ends, and returns how many.
func write(ctx context.Context, host string) (n int) {
	rate, _ := strconv.Atoi(os.Getenv("LINES"))
	if rate == 0 {
		<-ctx.Done()
		return 0
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		select {
		case <-ctx.Done():
			return n
		case <-tick.C:
		}
		var lines strings.Builder
		for due := int(time.Since(began).Seconds() * float64(rate)); n < due; n++ {
			fmt.Fprintf(&lines, "line %d of %s, said for no reason but to be counted\n", n+1, host)
		}
		os.Stdout.WriteString(lines.String())
	}
}
