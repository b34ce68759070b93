module edgeha.example/otherclients

go 1.26

require (
	github.com/amenzhinsky/iothub v0.9.0
	github.com/moby/moby/api v1.56.1
)

require (
	github.com/Azure/go-amqp v0.17.0 // indirect
	github.com/docker/go-units v0.5.0 // indirect
	github.com/moby/docker-image-spec v1.3.1 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
)
