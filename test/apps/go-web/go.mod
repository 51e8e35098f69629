module example.com/go-web

go 1.23

require (
	github.com/google/uuid v1.6.0
	go.uber.org/zap v1.27.0
	gopkg.in/yaml.v3 v3.0.1
)

require go.uber.org/multierr v1.10.0 // indirect
