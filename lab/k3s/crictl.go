package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/protoadapt"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runCrictl is the part of crictl that looks: what runs, and with which images.
func runCrictl(words []string) error {
	all, quiet, form, rest := false, false, "table", []string{}
	for i := 0; i < len(words); i++ {
		switch word := words[i]; word {
		case "-a", "--all":
			all = true
		case "-q", "--quiet":
			quiet = true
		case "-o", "--output":
			if i++; i < len(words) {
				form = words[i]
			}
		default:
			rest = append(rest, word)
		}
	}
	if len(rest) == 0 {
		return fmt.Errorf("crictl: name one of ps, pods, images, version, info")
	}
	connection, err := grpc.NewClient("unix://"+containerdSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	runtime, images := cri.NewRuntimeServiceClient(connection), cri.NewImageServiceClient(connection)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	defer table.Flush()
	short := func(id string) string {
		if len(id) > 13 {
			return id[:13]
		}
		return id
	}
	switch rest[0] {
	case "ps":
		filter := &cri.ContainerFilter{}
		if !all {
			filter.State = &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}
		}
		answer, err := runtime.ListContainers(ctx, &cri.ListContainersRequest{Filter: filter})
		if err != nil {
			return err
		}
		if form == "json" {
			return printProto(answer)
		}
		if !quiet {
			fmt.Fprint(table, "CONTAINER\tIMAGE\tSTATE\tNAME\tPOD ID\tPOD\n")
		}
		for _, each := range answer.Containers {
			if quiet {
				fmt.Fprintln(table, each.Id)
				continue
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", short(each.Id), short(strings.TrimPrefix(each.ImageRef, "sha256:")), stateName(each.State.String()), each.Metadata.Name, short(each.PodSandboxId), each.Labels["io.kubernetes.pod.name"])
		}
	case "pods":
		answer, err := runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
		if err != nil {
			return err
		}
		if form == "json" {
			return printProto(answer)
		}
		if !quiet {
			fmt.Fprint(table, "POD ID\tSTATE\tNAME\tNAMESPACE\n")
		}
		for _, each := range answer.Items {
			if quiet {
				fmt.Fprintln(table, each.Id)
				continue
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", short(each.Id), stateName(each.State.String()), each.Metadata.Name, each.Metadata.Namespace)
		}
	case "images", "image":
		answer, err := images.ListImages(ctx, &cri.ListImagesRequest{})
		if err != nil {
			return err
		}
		if form == "json" {
			return printProto(answer)
		}
		if !quiet {
			fmt.Fprint(table, "IMAGE\tIMAGE ID\tSIZE\n")
		}
		for _, each := range answer.Images {
			if quiet {
				fmt.Fprintln(table, each.Id)
				continue
			}
			for _, name := range each.RepoTags {
				fmt.Fprintf(table, "%s\t%s\t%d\n", name, short(strings.TrimPrefix(each.Id, "sha256:")), each.GetSize())
			}
		}
	case "version":
		answer, err := runtime.Version(ctx, &cri.VersionRequest{})
		if err != nil {
			return err
		}
		fmt.Fprintf(table, "Version:  %s\nRuntimeName:  %s\nRuntimeVersion:  %s\nRuntimeApiVersion:  %s\n", answer.Version, answer.RuntimeName, answer.RuntimeVersion, answer.RuntimeApiVersion)
	case "info":
		answer, err := runtime.Status(ctx, &cri.StatusRequest{Verbose: true})
		if err != nil {
			return err
		}
		return printProto(answer)
	default:
		return fmt.Errorf("crictl %s needs the real k3s: the work-alike knows ps, pods, images, version and info", rest[0])
	}
	return nil
}

func stateName(name string) string {
	_, tail, found := strings.Cut(name, "_")
	if !found {
		return name
	}
	return tail
}

func printProto(message protoadapt.MessageV1) error {
	content, err := protojson.Marshal(protoadapt.MessageV2Of(message))
	if err != nil {
		return err
	}
	var document any
	if err := json.Unmarshal(content, &document); err != nil {
		return err
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(document)
}
