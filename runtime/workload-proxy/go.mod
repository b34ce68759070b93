module edgeha.example/workload-proxy

go 1.24
