package coordinator

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
)

// bareEtcd is the floor: a member in this process with etcd's own settings,
// four gets to a durable transaction that changes a record of 300 bytes.
func bareEtcd(b *testing.B) results {
	cfg := embed.NewConfig()
	cfg.Dir = b.TempDir()
	cfg.ListenPeerUrls, cfg.ListenClientUrls, cfg.AdvertiseClientUrls = nil, nil, nil
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "localhost:2380"}}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	server, err := embed.StartEtcd(cfg)
	must(b, err)
	defer server.Close()
	<-server.Server.ReadyNotify()
	client := v3client.New(server.Server)
	defer client.Close()
	value := fmt.Sprintf("%0300d", 0)
	return together(benchClients, benchCalls, func(i, n int) (bool, error) {
		key := fmt.Sprint("key", i)
		if n%5 != 0 {
			_, err := client.Get(b.Context(), key, clientv3.WithSerializable())
			return false, err
		}
		_, err := client.Txn(b.Context()).
			If(clientv3.Compare(clientv3.Version(key), "=", n/5)).Then(clientv3.OpPut(key, value)).Commit()
		return true, err
	})
}

// fsyncs are etcd's own figures of its write-ahead log.
type fsyncs struct {
	n    uint64
	took float64 // seconds
}

func walFsyncs(b *testing.B) fsyncs {
	families, err := prometheus.DefaultGatherer.Gather()
	must(b, err)
	for _, f := range families {
		if f.GetName() == "etcd_disk_wal_fsync_duration_seconds" {
			h := f.GetMetric()[0].GetHistogram()
			return fsyncs{h.GetSampleCount(), h.GetSampleSum()}
		}
	}
	return fsyncs{}
}

func (f fsyncs) since(before fsyncs) fsyncs { return fsyncs{f.n - before.n, f.took - before.took} }

func (f fsyncs) each() time.Duration {
	return time.Duration(f.took / float64(max(f.n, 1)) * float64(time.Second)).Round(10 * time.Microsecond)
}
