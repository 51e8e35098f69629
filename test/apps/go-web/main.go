// Go-web greets in the language a visitor asks for.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"gopkg.in/yaml.v3"
)

//go:embed pages/greetings.yml
var text []byte

func main() {
	logger, err := zap.NewProduction()
	if err != nil {
		log.Fatal(err)
	}
	defer logger.Sync()
	var greetings map[string]string
	if err := yaml.Unmarshal(text, &greetings); err != nil {
		logger.Fatal("read greetings", zap.Error(err))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		greeting, ok := greetings[r.URL.Query().Get("lang")]
		if !ok {
			greeting = greetings["en"]
		}
		fmt.Fprintf(w, "%s from %s\n", greeting, os.Getenv("DYNO"))
	})
	mux.HandleFunc("GET /id", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, uuid.NewString()) })

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server := &http.Server{Addr: ":" + os.Getenv("PORT"), Handler: mux}
	go func() {
		<-ctx.Done()
		server.Shutdown(context.Background())
	}()
	logger.Info("listening", zap.String("addr", server.Addr))
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		logger.Fatal("serve", zap.Error(err))
	}
}
