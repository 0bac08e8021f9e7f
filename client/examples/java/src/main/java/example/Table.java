package example;

import com.google.protobuf.ByteString;
import com.sealserve.inference.InferTensorContents;
import com.sealserve.inference.ModelInferRequest.InferInputTensor;
import com.sealserve.inference.ModelInferResponse;
import com.sealserve.inference.ModelMetadataResponse;
import com.sealserve.inference.ModelMetadataResponse.TensorMetadata;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;

/** The rows of a CSV file with a header, whose fields have no quotes and no commas. */
record Table(List<String> names, List<String[]> rows) {
  static Table read(Path path) throws IOException {
    List<String[]> lines = Files.readAllLines(path).stream().map(line -> line.split(",", -1)).toList();
    return new Table(List.of(lines.get(0)), lines.subList(1, lines.size()));
  }

  /** Some rows as the tensors that a model takes: one of all columns, or one a column. */
  List<InferInputTensor> inputs(ModelMetadataResponse model, int begin, int end) {
    List<String[]> chosen = rows.subList(begin, end);
    if (model.getInputsCount() == 1 && model.getInputs(0).getShapeCount() == 2) {
      return List.of(
          tensor(model.getInputs(0), chosen.stream().flatMap(Stream::of), chosen.size(), names.size()));
    }
    List<InferInputTensor> inputs = new ArrayList<>();
    for (TensorMetadata column : model.getInputsList()) {
      int place = names.indexOf(column.getName());
      if (place < 0) {
        throw new IllegalArgumentException("the file has no column " + column.getName());
      }
      inputs.add(tensor(column, chosen.stream().map(row -> row[place]), chosen.size()));
    }
    return inputs;
  }

  private static InferInputTensor tensor(TensorMetadata said, Stream<String> values, long... shape) {
    InferTensorContents.Builder contents = InferTensorContents.newBuilder();
    if (said.getDatatype().equals("BYTES")) {
      values.forEach(value -> contents.addBytesContents(ByteString.copyFromUtf8(value)));
    } else {
      values.forEach(value -> contents.addFp64Contents(Double.parseDouble(value)));
    }
    InferInputTensor.Builder tensor =
        InferInputTensor.newBuilder().setName(said.getName()).setDatatype(said.getDatatype());
    for (long size : shape) {
      tensor.addShape(size);
    }
    return tensor.setContents(contents).build();
  }

  /** Writes the outputs of a reply as CSV, a line for each row. */
  static void write(PrintStream out, ModelInferResponse reply, boolean withHeader) {
    List<String> header = new ArrayList<>();
    List<List<String>> columns = new ArrayList<>();
    List<Integer> widths = new ArrayList<>();
    for (ModelInferResponse.InferOutputTensor output : reply.getOutputsList()) {
      int width = output.getShapeCount() == 2 ? (int) output.getShape(1) : 1;
      for (int place = 0; place < width; place++) {
        header.add(output.getName() + "_" + place);
      }
      columns.add(texts(output.getContents()));
      widths.add(width);
    }
    if (withHeader) {
      out.println(String.join(",", header));
    }
    for (int row = 0; row < reply.getOutputs(0).getShape(0); row++) {
      List<String> cells = new ArrayList<>();
      for (int place = 0; place < columns.size(); place++) {
        int width = widths.get(place);
        cells.addAll(columns.get(place).subList(row * width, (row + 1) * width));
      }
      out.println(String.join(",", cells));
    }
  }

  /** The values of an output. Labels are strings, integers or booleans; all else is FP64. */
  private static List<String> texts(InferTensorContents contents) {
    return Stream.of(
            contents.getBytesContentsList().stream().map(ByteString::toStringUtf8),
            contents.getInt64ContentsList().stream().map(String::valueOf),
            contents.getBoolContentsList().stream().map(String::valueOf),
            contents.getFp64ContentsList().stream().map(String::valueOf))
        .flatMap(texts -> texts)
        .toList();
  }
}
