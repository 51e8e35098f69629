package coordinator

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"manifold"
	"manifold/coordinator/store"
)

// The platform of BenchmarkAPI, and who calls it.
const (
	benchApps, benchReleases = 1000, 50 // each
	benchUsers               = 20       // who own as many apps each
	benchClients, benchCalls = 200, 50  // each; ten clients at a time work on one app
)

// TestMain makes the test binary the clients of BenchmarkAPI, so that what
// they take is not counted as the coordinator's.
func TestMain(m *testing.M) {
	if path := os.Getenv("BENCH_API_LOAD"); path != "" {
		if err := callTheAPI(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// BenchmarkAPI is a whole coordinator with 1,000 apps of 50 releases, called by
// 200 clients at once, and the size of its store; beside it etcd alone, called
// by as many. It prints one block. Run it with -benchtime 1x.
func BenchmarkAPI(b *testing.B) {
	for b.Loop() {
		r := newRig(b)
		r.cfg.APIRate = 1 << 20
		l := load{Clients: benchClients, Calls: benchCalls}
		seeding := time.Now()
		seed(b, r.cfg.dir(), &l)
		seeded := time.Since(seeding)
		size := fileSize(b, r.cfg.dir("etcd", "member", "snap", "db"))
		r.start()
		l.URL = "http://" + r.at.API.String()
		fsyncs, spent, began := walFsyncs(b), cpu(b), time.Now()
		res := l.run(b)
		took := time.Since(began)
		spent = cpu(b) - spent
		fsyncs = walFsyncs(b).since(fsyncs)
		calls := len(res.Reads) + len(res.Writes)
		must(b, r.stop())
		bare := bareEtcd(b)

		fmt.Printf("\n%d clients at once, %d apps of %d releases\n", benchClients, benchApps, benchReleases)
		fmt.Printf("  reads   p50 %8v  p99 %8v  (%d)\n", res.Reads.at(50), res.Reads.at(99), len(res.Reads))
		fmt.Printf("  writes  p50 %8v  p99 %8v  (%d)\n", res.Writes.at(50), res.Writes.at(99), len(res.Writes))
		fmt.Printf("  %.0f requests/s, %v of CPU a request, %.2f fsyncs a write of %v each\n", float64(calls)/took.Seconds(),
			(spent / time.Duration(calls)).Round(time.Microsecond), float64(fsyncs.n)/float64(len(res.Writes)), fsyncs.each())
		fmt.Printf("  etcd    %.1f MB after %d apps x %d releases, made in %v\n", float64(size)/1e6, benchApps, benchReleases, seeded.Round(time.Second))
		fmt.Printf("  etcd alone, as many clients, one get or one durable transaction a call:\n")
		fmt.Printf("  reads   p50 %8v  p99 %8v  ours take %.1f times as long at p99\n", bare.Reads.at(50), bare.Reads.at(99), ratio(res.Reads, bare.Reads))
		fmt.Printf("  writes  p50 %8v  p99 %8v  ours take %.1f times as long at p99\n\n", bare.Writes.at(50), bare.Writes.at(99), ratio(res.Writes, bare.Writes))
		for _, e := range res.Errors {
			b.Error(e)
		}
	}
}

func ratio(ours, theirs times) float64 { return float64(ours.at(99)) / float64(theirs.at(99)) }

// seed fills a store: of each app's releases one is code, the rest are changes
// of config vars of a usual size, 20 of them, about 1 KB, with an entry of the
// audit trail each. Each user's first app is called by clients.
func seed(b *testing.B, dir string, l *load) {
	s, err := store.Open(b.Context(), dir, slog.New(slog.DiscardHandler))
	must(b, err)
	defer s.Close()
	var group errgroup.Group
	group.SetLimit(64)
	for u := range benchUsers {
		user, token, err := s.CreateUser(b.Context(), fmt.Sprintf("user-%d@example.com", u))
		must(b, err)
		l.Tokens = append(l.Tokens, token)
		l.Apps = append(l.Apps, fmt.Sprintf("bench-%d-0", u))
		for i := range benchApps / benchUsers {
			group.Go(func() error { return seedApp(b, s, fmt.Sprintf("bench-%d-%d", u, i), user) })
		}
	}
	must(b, group.Wait())
}

func seedApp(b *testing.B, s *store.Store, name string, user manifold.User) error {
	app, err := s.CreateApp(b.Context(), manifold.App{Name: name, Stack: "cedar"}, user)
	if err != nil {
		return err
	}
	_, err = s.Deploy(b.Context(), app.ID, manifold.Slug{Stack: "cedar", ProcessTypes: map[string]string{"web": "bin/web"}}, "Deploy 1234567", user)
	config := map[string]string{}
	for i := range 20 {
		config[fmt.Sprintf("VARIABLE_%d", i)] = "postgres://user:" + rand.Text() + "@host.example/db"
	}
	for n := 4; n <= benchReleases && err == nil; n++ {
		ctx := store.By(b.Context(), &store.Author{ID: user.ID, Email: user.Email, From: "127.0.0.1", Request: app.ID, Authorization: app.ID})
		_, err = s.AddRelease(ctx, app.ID, user, func(r *manifold.Release) error {
			maps.Copy(r.Config, config)
			r.Config["N"], r.Description = fmt.Sprint(n), "Set VARIABLE config vars"
			return nil
		})
	}
	return err
}

// run has another process make the calls.
func (l *load) run(b *testing.B) (res results) {
	text, err := json.Marshal(l)
	must(b, err)
	path := filepath.Join(b.TempDir(), "load")
	must(b, os.WriteFile(path, text, 0o600))
	clients := exec.CommandContext(b.Context(), os.Args[0])
	clients.Env = append(os.Environ(), "BENCH_API_LOAD="+path)
	clients.Stderr = os.Stderr
	out, err := clients.Output()
	must(b, err)
	must(b, json.Unmarshal(out, &res))
	return res
}

func fileSize(b *testing.B, path string) int64 {
	info, err := os.Stat(path)
	must(b, err)
	return info.Size()
}

// cpu is what this process has used of it.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
